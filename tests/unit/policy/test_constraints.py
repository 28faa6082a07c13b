import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perllm.policy.constraints import measure_slacks, time_slack
from unit.policy.arms import make_arms, make_task


def test_the_slack_is_the_smallest_of_time_compute_and_bandwidth() -> None:
    arms = make_arms(
        latency_s=[4, 9, 4, 4],  # of 10: slack 0.6, 0.1, 0.6, 0.6
        compute=[(1, 2), (1, 4), (3, 4), (1, 4)],  # 0.5, 0.75, 0.25, 0.75
        bandwidth=[(10, 100), (10, 100), (10, 100), (80, 100)],  # 0.9, 0.9, 0.9, 0.2
    )
    slacks = measure_slacks(make_task(time_left_s=10), arms)
    assert slacks.total == pytest.approx([0.5, 0.1, 0.25, 0.2])
    assert slacks.resources == pytest.approx([0.5, 0.75, 0.25, 0.2])
    assert slacks.feasible.all()
    assert slacks.excluded == {}


def test_a_constraint_holds_up_to_its_very_bound() -> None:
    arms = make_arms(latency_s=[10, 10.01], compute=[(4, 4), (4, 4)], bandwidth=[(100, 100), (100, 100)])
    assert measure_slacks(make_task(time_left_s=10), arms).feasible.tolist() == [True, False]


def test_an_arm_is_counted_under_the_first_constraint_that_refuses_it() -> None:
    arms = make_arms(
        latency_s=[99, 99, 99, 99, 1],
        compute=[(5, 4), (5, 4), (1, 4), (1, 4), (1, 4)],
        bandwidth=[(200, 100), (200, 100), (200, 100), (1, 100), (1, 100)],
        allowed=[False, True, True, True, True],
    )
    slacks = measure_slacks(make_task(time_left_s=10), arms)
    assert slacks.excluded == {"tier": 1, "compute": 1, "bandwidth": 1, "late": 1}
    assert slacks.placeable.tolist() == [False, False, False, True, True]
    assert slacks.feasible.tolist() == [False, False, False, False, True]


def test_a_node_without_slots_or_uplink_never_has_room() -> None:
    arms = make_arms(latency_s=[1, 1], compute=[(1, 0), (1, 4)], bandwidth=[(0, 100), (0, 0)])
    assert measure_slacks(make_task(), arms).excluded == {"compute": 1, "bandwidth": 1}


def test_lateness_is_measured_in_deadlines_and_counts_once_at_most() -> None:
    assert time_slack(np.array([0.0, 5.0, 15.0, 500.0]), 10.0) == pytest.approx([1.0, 0.5, -0.5, -1.0])
    assert time_slack(np.array([0.0]), -3.0).tolist() == [-1.0]


@settings(deadline=None)
@given(
    latency_s=st.integers(0, 100),
    left_s=st.integers(-10, 100),
    used=st.integers(0, 10),
    slots=st.integers(0, 10),
    sent=st.integers(0, 1000),
    uplink=st.integers(0, 1000),
)
def test_no_slack_is_negative_exactly_where_all_constraints_hold(
    latency_s: float, left_s: float, used: float, slots: float, sent: float, uplink: float
) -> None:
    arms = make_arms(latency_s=[latency_s], compute=[(used, slots)], bandwidth=[(sent, uplink)])
    slacks = measure_slacks(make_task(time_left_s=left_s), arms)
    holds = left_s > 0 and latency_s <= left_s and slots > 0 and used <= slots and uplink > 0 and sent <= uplink
    assert slacks.feasible[0] == holds == (slacks.total[0] >= 0)
