"""The nodes that a task could have gone to instead: few, different, and each with what it lost by."""

import numpy as np

from perllm.placement.alternatives import MAX_EXAMINED, Alternative, list_alternatives
from perllm.policy.problem import Choice, Term
from unit.policy.arms import make_arms


def find(
    chances: list[float], types: str, *, energies: list[float] | None = None, full: int = -1
) -> tuple[Alternative, ...]:
    """Alternatives to n0 among n0, n1, ..., each with a letter for its type."""
    count = len(chances)
    arms = make_arms(
        latency_s=[float(at) for at in range(count)],
        hit_chance=chances,
        compute=[(9.0 if at == full else 1.0, 4.0) for at in range(count)],
    )
    chance, energy = np.array(chances), np.array(energies or [0.0] * count)
    terms = (Term("chance", chance), Term("energy", energy, -1))
    choice = Choice(arm=0, scores=chance - energy, reason="", terms=terms)
    names = [f"n{at}" for at in range(count)]
    type_of = dict(zip(names, types, strict=True))
    numbers = np.array([ord(letter) for letter in types])
    return list_alternatives(names, arms, choice, 0, types=numbers, gpu_type_of=type_of.__getitem__)


def test_each_is_the_best_node_of_its_type_and_the_best_comes_first() -> None:
    found = find([0.9, 0.5, 0.6, 0.8, 0.7], "aabbc")
    assert [(one.node, one.gpu_type) for one in found] == [("n3", "b"), ("n4", "c"), ("n1", "a")]


def test_there_are_few_in_a_fleet_of_many_types() -> None:
    assert len(find([0.9, 0.8, 0.7, 0.6, 0.5], "abcde")) == 3


def test_those_of_a_large_fleet_are_found_among_its_best_nodes() -> None:
    count = 2 * MAX_EXAMINED
    chances = [0.9] + [0.8 - 0.5 * at / count for at in range(1, count)]
    types = ["a"] * count
    types[5], types[MAX_EXAMINED], types[MAX_EXAMINED + 1] = "b", "c", "d"
    assert [one.node for one in find(chances, "".join(types))] == ["n1", "n5", f"n{MAX_EXAMINED}"]


def test_a_node_that_may_not_take_the_task_is_none() -> None:
    assert find([0.9, -np.inf], "ab") == ()


def test_each_has_the_part_that_was_worse_by_most() -> None:
    near, far = find([0.9, 0.9, 0.5], "abc", energies=[0.1, 0.2, 0.2])
    assert (near.lost_by, far.lost_by) == ("energy", "chance")


def test_a_better_node_without_room_lost_by_nothing() -> None:
    (full,) = find([0.5, 0.9], "ab", full=1)
    assert (full.node, full.has_room, full.lost_by) == ("n1", False, "")


def test_a_node_that_was_never_tried_has_no_score() -> None:
    (untried,) = find([0.5, np.inf], "ab")
    assert untried.score is None
