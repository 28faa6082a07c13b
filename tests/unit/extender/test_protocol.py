from dataclasses import dataclass

import numpy as np
import pytest

from perllm.extender.protocol import filter_answer, priorities, unplaceable_answer
from perllm.extender.scheduler import WEIGHT, scheduler_configuration
from perllm.placement.placer import Placement


@dataclass
class _Arms:
    compute_used: np.ndarray
    compute_capacity: np.ndarray
    allowed: np.ndarray


@dataclass
class _Placement:
    names: list[str]
    open_scores: np.ndarray
    arm: int | None
    node: str | None
    obstacle: str
    arms: _Arms


def placement(scores: dict[str, float], node: str | None, obstacle: str = "", used: float = 1.0) -> Placement:
    nodes = list(scores)
    arm = None if node is None else nodes.index(node)
    arms = _Arms(np.full(len(nodes), used), np.ones(len(nodes)), np.ones(len(nodes), dtype=np.bool_))
    return _Placement(nodes, np.array(list(scores.values())), arm, node, obstacle, arms)  # type: ignore[return-value]


def test_filter_passes_the_chosen_node_alone() -> None:
    answer = filter_answer(placement({"a": 0.5, "b": -np.inf, "c": 0.9, "d": np.inf}, "c"), ["a", "b", "c", "d", "x"])
    assert answer == {"NodeNames": ["c"], "FailedNodes": {}, "FailedAndUnresolvableNodes": {}, "Error": ""}


def test_where_no_node_passes_all_may_be_tried_again() -> None:
    answer = filter_answer(placement({"a": -np.inf, "b": -np.inf}, None), ["a", "b", "unknown"])
    assert (answer["NodeNames"], set(answer["FailedNodes"])) == ([], {"a", "b", "unknown"})
    assert (answer["FailedAndUnresolvableNodes"], answer["Error"]) == ({}, "")


@pytest.mark.parametrize(
    ("used", "why"), [(2.0, "no slot is free on a node that may take it"), (1.0, "a constraint does not hold")]
)
def test_without_an_obstacle_it_is_the_lack_of_room_or_a_constraint(used: float, why: str) -> None:
    answer = filter_answer(placement({"a": -np.inf}, None, used=used), ["a"])
    assert answer["FailedNodes"] == {"a": f"excluded by PerLLM: {why}"}


def test_preemption_is_not_tried_for_a_pod_that_no_node_may_take() -> None:
    answer = unplaceable_answer("annotation perllm.io/model is missing", ["a"])
    assert (answer["NodeNames"], answer["FailedNodes"], answer["Error"]) == ([], {}, "")
    failed = {"a": "excluded by PerLLM: annotation perllm.io/model is missing"}
    assert answer["FailedAndUnresolvableNodes"] == failed


def test_what_keeps_a_pod_from_all_nodes_is_reported_for_each() -> None:
    answer = filter_answer(placement({"a": -np.inf}, None, "no node satisfies: tiers cloud (1 node)"), ["a"])
    assert answer["FailedNodes"] == {"a": "excluded by PerLLM: no node satisfies: tiers cloud (1 node)"}


def test_the_chosen_node_gets_ten_points_and_the_others_fewer_by_rank() -> None:
    scores = {"a": 0.1, "b": 0.9, "c": 0.5, "d": 0.7}
    answer = {one["Host"]: one["Score"] for one in priorities(placement(scores, "c"), [*scores, "unknown"])}
    assert answer == {"c": 10, "b": 9, "d": 8, "a": 7, "unknown": 0}


def test_points_never_fall_below_zero() -> None:
    scores = {f"n{number:02}": -float(number) for number in range(30)}
    points = [one["Score"] for one in priorities(placement(scores, "n00"), list(scores))]
    assert points == [10, 9, 8, 7, 6, 5, 4, 3, 2, 1] + [0] * 20


def test_the_scheduler_asks_only_the_extender_and_considers_all_nodes() -> None:
    configuration = scheduler_configuration("http://127.0.0.1:1", "perllm")
    extender = configuration["extenders"][0]
    assert configuration["percentageOfNodesToScore"] == 100
    assert configuration["profiles"][0]["plugins"] == {"score": {"disabled": [{"name": "*"}]}}
    assert (extender["nodeCacheCapable"], extender["ignorable"], extender["weight"]) == (True, False, WEIGHT)
    assert {extender[verb] for verb in ("filterVerb", "prioritizeVerb", "bindVerb")} == {"filter", "prioritize", "bind"}
