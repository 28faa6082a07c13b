"""A pod created at 1000 s; its container started at 1002 s, ended at 1010 s, and was seen 0.3 s later."""

import dataclasses
import logging
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perllm.api.report import RunReport
from perllm.cluster.pod import Pod, Timing
from perllm.controller.clocks import MIN_SIGHTS, SKEWED_S, Clocks, bound_times
from unit.controller.samples import bound, refused, running, succeeded

CREATED_S, STARTED_S, ENDED_S, LATENCY_S = 1000.0, 1002.0, 1010.0, 0.3


def start(skew_s: float = 0.0) -> Pod:
    return running(started_s=STARTED_S + skew_s)


def end(skew_s: float = 0.0, **fields: object) -> Pod:
    values = {"started_s": STARTED_S + skew_s, "finished_s": ENDED_S + skew_s, **fields}
    return dataclasses.replace(succeeded(), **values)  # type: ignore[arg-type]


def watch(skew_s: float, clocks: Clocks | None = None) -> Pod:
    """Return what is believed of a pod that is seen bound, running and ended."""
    clocks = clocks or Clocks(lambda _: True, lambda *_: None)
    seen: Pod | None = None
    for pod, at_s in ((bound(), 1001.0), (start(skew_s), STARTED_S), (end(skew_s), ENDED_S)):
        seen = clocks.see(pod, seen, at_s + LATENCY_S)
    assert seen is not None
    return seen


class TestTimes:
    @pytest.mark.parametrize("skew_s", [20.0, 120.0, -5.0, -120.0, -20_000 * 86_400.0])
    def test_of_a_wrong_clock_are_replaced_by_what_was_seen(self, skew_s: float) -> None:
        pod = watch(skew_s)
        assert (pod.started_s, pod.finished_s) == (STARTED_S + LATENCY_S, ENDED_S + LATENCY_S)
        assert pod.timing is Timing.OPERATOR

    @pytest.mark.parametrize("skew_s", [0.0, 0.5, 1.0, -1.0])
    def test_within_the_resolution_are_those_of_the_node(self, skew_s: float) -> None:
        pod = watch(skew_s)
        assert pod.timing is Timing.NODE
        assert pod.finished_s == min(ENDED_S + skew_s + 1.0, ENDED_S + LATENCY_S)

    def test_are_bounded_by_the_api_server_where_the_operator_saw_them_late(self) -> None:
        pod = bound_times(end(-120.0, reported_s=1010.0), None, 5000.0)
        assert (pod.started_s, pod.finished_s, pod.timing) == (1003.0, 1011.0, Timing.OPERATOR)

    def test_of_requests_are_those_of_the_agent_however_late_its_reports_are_seen(self) -> None:
        clocks = Clocks(lambda _: True, lambda *_: None)
        for _ in range(MIN_SIGHTS + 1):
            begun = dataclasses.replace(start(), is_served=True)
            pod = clocks.see(end(is_served=True), begun, ENDED_S + 60.0)
            assert (pod.started_s, pod.finished_s) == (STARTED_S, ENDED_S + 1.0)

    def test_that_cannot_be_known_are_marked_as_unknown(self) -> None:
        pod = bound_times(end(-120.0), None, 5000.0)
        assert (pod.finished_s, pod.timing) == (5000.0, Timing.UNKNOWN)

    def test_once_seen_do_not_change(self) -> None:
        clocks = Clocks(lambda _: True, lambda *_: None)
        ended = clocks.see(end(), None, 1010.3)
        again = clocks.see(end(500.0, is_deleting=True), ended, 1030.0)
        assert again == dataclasses.replace(ended, is_deleting=True)

    def test_of_another_pod_of_the_same_name_are_its_own(self) -> None:
        clocks = Clocks(lambda _: True, lambda *_: None)
        before = clocks.see(end(), None, 1010.3)
        other = dataclasses.replace(start(), uid="another")
        assert clocks.see(other, before, 1011.0).finished_s is None

    def test_of_a_pod_that_never_ran_have_no_start(self) -> None:
        pod = bound_times(refused(), bound(), 1005.0)
        assert (pod.started_s, pod.finished_s) == (None, 1005.0)

    @pytest.mark.parametrize(
        ("reported", "expected"),
        [("1970-01-01T00:16:50.250Z", 1010.25), ("1970-01-01T05:00:00Z", 1011.0), ("1970-01-01T00:00:00Z", 1011.0)],
        ids=["agrees", "clock is ahead", "clock is behind"],
    )
    def test_of_a_report_count_if_they_agree_with_kubernetes(self, reported: str, expected: float) -> None:
        pod = end(report=RunReport.model_validate({"finishedAt": reported}))
        assert bound_times(pod, start(), 1500.0).finished_s == expected

    def test_of_a_reported_start_count_if_they_agree_with_kubernetes(self) -> None:
        agreeing = end(report=RunReport.model_validate({"startedAt": "1970-01-01T00:16:42.5Z"}))
        absurd = end(report=RunReport.model_validate({"startedAt": "1970-01-01T09:00:00Z"}))
        assert bound_times(agreeing, start(), 1500.0).started_s == 1002.5
        assert bound_times(absurd, start(), 1500.0).started_s == 1002.0

    @given(
        st.floats(-1e9, 1e10), st.floats(-1e9, 1e10), st.floats(0, 1e5), st.none() | st.floats(0, 1e5), st.booleans()
    )
    def test_lie_between_creation_and_sight_whatever_a_node_says(
        self, started_s: float, finished_s: float, late_s: float, stored_s: float | None, was_seen: bool
    ) -> None:
        reported_s = None if stored_s is None else CREATED_S + stored_s
        pod = dataclasses.replace(succeeded(), started_s=started_s, finished_s=finished_s, reported_s=reported_s)
        seen = bound_times(pod, bound() if was_seen else None, CREATED_S + late_s)
        assert seen.started_s is not None
        assert seen.finished_s is not None
        assert CREATED_S <= seen.started_s <= seen.finished_s <= CREATED_S + late_s


class TestIdleness:
    def test_counts_from_the_binding_that_was_seen(self) -> None:
        pod = bound(idle_since_s=400.0)
        assert bound_times(pod, bound(node=None), 1001.0).idle_since_s == 1001.0
        assert bound_times(pod, bound(idle_since_s=1001.0), 1050.0).idle_since_s == 1001.0

    def test_counts_from_the_binding_that_the_api_server_saw_after_a_restart(self) -> None:
        assert bound_times(bound(idle_since_s=1001.0), None, 1050.0).idle_since_s == 1001.0


class TestSkew:
    def test_is_estimated_by_the_soonest_sight_and_logged_once(self, caplog: pytest.LogCaptureFixture) -> None:
        shown: dict[str, float | None] = {}
        clocks = Clocks(lambda _: True, shown.__setitem__)
        with caplog.at_level(logging.WARNING):
            for _ in range(3):
                watch(-120.0, clocks)
        skew_s = shown["n"]
        assert skew_s is not None
        assert math.isclose(skew_s, -120.0, abs_tol=1.0)
        assert [record.getMessage().split(",")[0] for record in caplog.records] == [
            "the clock of node n is about 120 s behind the operator's"
        ]

    def test_of_a_right_clock_is_nothing(self) -> None:
        shown: dict[str, float | None] = {}
        watch(0.0, Clocks(lambda _: True, shown.__setitem__))
        assert shown == {"n": 0.0}

    def test_once_known_is_believed_where_a_single_pod_would_not_show_it(self) -> None:
        clocks = Clocks(lambda _: True, lambda *_: None)
        for _ in range(3):
            watch(-2 * SKEWED_S, clocks)
        # 40 s after its creation a pod may well have started 10 s earlier.
        pod = running(started_s=1040.0 - 2 * SKEWED_S)
        assert clocks.see(pod, bound(), 1040.3).started_s == 1040.3

    def test_of_nodes_outside_the_fleet_is_not_watched(self) -> None:
        shown: dict[str, float | None] = {}
        watch(-120.0, Clocks(lambda _: False, shown.__setitem__))
        assert shown == {}

    def test_is_forgotten_with_its_node(self) -> None:
        shown: dict[str, float | None] = {}
        clocks = Clocks(lambda _: True, shown.__setitem__)
        watch(-120.0, clocks)
        clocks.forget("n")
        clocks.forget("never seen")
        assert shown == {"n": None}
