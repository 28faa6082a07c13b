"""What is kept of the outcomes of nodes that have left."""

import pytest

from perllm.learning.absences import KEEP_S, MAX_ABSENT, Absences
from unit.learning.outcomes import make_outcome
from unit.placement.cluster_of import make_node
from unit.scheduling.schedulers import UPLINK, make_scheduler

NOW_S = 5000.0
LEARNED = [make_outcome(number, node="a") for number in range(3)]


class Cluster:
    """A scheduler whose node `a` has had the outcomes `LEARNED`."""

    def __init__(self) -> None:
        self.now_s = NOW_S
        made = make_scheduler(make_node("a"), now_s=lambda: self.now_s)
        self.scheduler, self.learner = made.scheduler, made.parts.learner
        for outcome in LEARNED:
            assert self.scheduler.learn(outcome, "T4") is not None

    def leave(self, for_s: float) -> None:
        self.scheduler.remove_node("a")
        self.now_s += for_s
        self.scheduler.refresh()

    def learns(self, number: int, finished_s: float) -> bool:
        return self.scheduler.learn(make_outcome(number, node="a", finished_s=finished_s), "T4") is not None


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def test_of_a_node_that_is_gone_for_an_hour_only_the_time_of_its_last_outcome_is_kept(cluster: Cluster) -> None:
    cluster.leave(for_s=KEEP_S)
    recent = cluster.learner.recent("a")
    assert (recent.ids, recent.times_s, recent.since_s) == ([], [], LEARNED[-1].finished_s)


def test_no_outcome_of_a_node_is_learned_twice_however_long_it_is_gone(cluster: Cluster) -> None:
    cluster.leave(for_s=100 * KEEP_S)
    cluster.scheduler.put_node(make_node("a"), UPLINK)
    assert [cluster.scheduler.learn(outcome, "T4") for outcome in LEARNED] == [None] * 3


def test_a_node_that_returns_after_long_learns_from_what_finishes_then(cluster: Cluster) -> None:
    cluster.leave(for_s=100 * KEEP_S)
    cluster.scheduler.put_node(make_node("a"), UPLINK)
    assert cluster.learns(7, finished_s=cluster.now_s)
    assert not cluster.learns(7, finished_s=cluster.now_s)


def test_an_outcome_that_is_settled_after_its_node_has_left_is_learned(cluster: Cluster) -> None:
    cluster.leave(for_s=KEEP_S - 1)
    assert cluster.learns(7, finished_s=LEARNED[0].finished_s)


def test_a_node_that_is_back_within_the_hour_keeps_its_outcomes(cluster: Cluster) -> None:
    cluster.leave(for_s=KEEP_S - 1)
    cluster.scheduler.put_node(make_node("a"), UPLINK)
    cluster.now_s += KEEP_S
    cluster.scheduler.refresh()
    assert len(cluster.learner.recent("a").ids) == len(LEARNED)


def test_a_clock_that_was_ahead_keeps_no_returning_node_from_learning(cluster: Cluster) -> None:
    assert cluster.learns(7, finished_s=NOW_S + 1e6)
    cluster.leave(for_s=KEEP_S)
    cluster.scheduler.put_node(make_node("a"), UPLINK)
    assert cluster.learns(8, finished_s=cluster.now_s + 1)


def test_all_is_kept_of_so_many_nodes_at_most() -> None:
    absences = Absences()
    for number in range(MAX_ABSENT + 2):
        absences.note_left(f"n{number}", NOW_S)
    assert absences.take_long(NOW_S) == ["n0", "n1"]
    assert absences.take_long(NOW_S) == []
    absences.note_back("n3")
    assert absences.take_long(NOW_S + KEEP_S) == [f"n{number}" for number in range(2, MAX_ABSENT + 2) if number != 3]
