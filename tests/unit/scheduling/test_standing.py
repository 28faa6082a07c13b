"""Which decisions are kept until their pods are bound, and for how long."""

import pytest

from perllm.scheduling.loop import MAX_EXAMINED
from perllm.scheduling.standing import ALWAYS_KEPT, StandingDecisions
from unit.placement.cluster_of import Setting, make_node, make_request, make_setting
from unit.scheduling.schedulers import make_scheduler


def decide_three(setting: Setting) -> StandingDecisions:
    standing = StandingDecisions(setting.fleet, setting.ledger, setting.circuits)
    for number in range(3):
        standing.put(setting.placer.choose(make_request(f"t{number}")))
    return standing


def kept(standing: StandingDecisions) -> list[bool]:
    return [standing.get(f"t{number}") is not None for number in range(3)]


@pytest.mark.parametrize(("limit", "value"), [("MAX_KEPT", 2), ("MAX_KEPT_ARMS", 5)])
def test_the_latest_are_kept_as_far_as_they_have_room(monkeypatch: pytest.MonkeyPatch, limit: str, value: int) -> None:
    monkeypatch.setattr("perllm.scheduling.standing.ALWAYS_KEPT", 1)
    monkeypatch.setattr(f"perllm.scheduling.standing.{limit}", value)
    assert kept(decide_three(make_setting(make_node("a"), make_node("b")))) == [False, True, True]


def test_those_of_a_round_are_kept_however_many_nodes_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ALWAYS_KEPT >= MAX_EXAMINED
    monkeypatch.setattr("perllm.scheduling.standing.ALWAYS_KEPT", 2)
    monkeypatch.setattr("perllm.scheduling.standing.MAX_KEPT_ARMS", 1)
    assert kept(decide_three(make_setting(make_node("a"), make_node("b")))) == [False, True, True]


def test_one_that_is_forgotten_or_made_again_counts_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perllm.scheduling.standing.ALWAYS_KEPT", 1)
    monkeypatch.setattr("perllm.scheduling.standing.MAX_KEPT_ARMS", 4)
    setting = make_setting(make_node("a"))
    standing = decide_three(setting)
    standing.pop("t0")
    for _ in range(4):
        standing.put(setting.placer.choose(make_request("t1")))
    assert kept(standing) == [False, True, True]


@pytest.mark.parametrize("end", ["bound", "gone"])
def test_it_is_forgotten_once_its_pod_is_bound_or_gone(end: str) -> None:
    scheduler = make_scheduler(make_node("a"), now_s=lambda: 1000.0).scheduler
    scheduler.decide(make_request("t"), ["a"])
    decision = scheduler.settle("t", "a")
    assert decision is not None
    if end == "bound":
        scheduler.confirm(decision, 1.0)
    else:
        scheduler.forget("t", "t")
    assert scheduler.settle("t", "a") is None
