from dataclasses import dataclass

import numpy as np

from perllm.extender.protocol import filter_answer, priorities
from perllm.extender.scheduler import WEIGHT, scheduler_configuration
from perllm.placement.placer import Placement
from unit.placement.cluster_of import CLOUD, EDGE, make_node, make_request, make_setting


@dataclass
class _Choice:
    scores: np.ndarray


@dataclass
class _Placement:
    names: list[str]
    choice: _Choice
    node: str | None


def placement(scores: dict[str, float], node: str | None) -> Placement:
    return _Placement(list(scores), _Choice(np.array(list(scores.values()))), node)  # type: ignore[return-value]


def test_filter_tells_the_nodes_that_pass_and_the_others() -> None:
    asked = ["a", "b", "c", "unknown"]
    answer = filter_answer(placement({"a": 0.5, "b": -np.inf, "c": np.inf}, "c"), asked)
    assert answer["NodeNames"] == ["a", "c"]
    assert set(answer["FailedNodes"]) == {"b", "unknown"}
    assert (answer["FailedAndUnresolvableNodes"], answer["Error"]) == ({}, "")


def test_a_node_without_room_now_may_be_tried_again() -> None:
    placer = make_setting(make_node("e", EDGE), make_node("c", CLOUD)).placer
    found = placer.choose(make_request(tiers=frozenset({CLOUD})), ["e", "c"])
    answer = filter_answer(found, ["e", "c"])
    assert (answer["NodeNames"], list(answer["FailedNodes"])) == (["c"], ["e"])


def test_the_chosen_node_gets_ten_points_and_the_others_fewer_by_rank() -> None:
    scores = {"a": 0.1, "b": 0.9, "c": 0.5, "d": 0.7}
    answer = {one["Host"]: one["Score"] for one in priorities(placement(scores, "c"), [*scores, "unknown"])}
    assert answer == {"c": 10, "b": 9, "d": 8, "a": 7, "unknown": 0}


def test_points_never_fall_below_zero() -> None:
    scores = {f"n{number:02}": -float(number) for number in range(30)}
    points = [one["Score"] for one in priorities(placement(scores, "n00"), list(scores))]
    assert points == [10, 9, 8, 7, 6, 5, 4, 3, 2, 1] + [0] * 20


def test_the_scheduler_asks_us_alone_and_looks_at_all_nodes() -> None:
    configuration = scheduler_configuration("http://127.0.0.1:1", "perllm")
    extender = configuration["extenders"][0]
    assert configuration["percentageOfNodesToScore"] == 100
    assert configuration["profiles"][0]["plugins"] == {"score": {"disabled": [{"name": "*"}]}}
    assert (extender["nodeCacheCapable"], extender["ignorable"], extender["weight"]) == (True, False, WEIGHT)
    assert {extender[verb] for verb in ("filterVerb", "prioritizeVerb", "bindVerb")} == {"filter", "prioritize", "bind"}
