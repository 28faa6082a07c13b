from math import inf

import pytest

from perllm_lab.lateness import Lateness, find_shortage, measure_lateness
from perllm_lab.workload.requests import Request

REQUESTS = [Request(f"task-{number}", "chat", 0.0, 100, 20, 400, deadline_s=10.0) for number in range(3)]


def test_what_is_seldom_late_is_not_late() -> None:
    lateness = measure_lateness([0.0] * 99 + [5.0], [0.1] * 100, [], operator_late={})

    assert lateness.worst == ("the API server answered", 0.1)


@pytest.mark.parametrize(
    ("counts", "late_s"),
    [
        ({0.1: 100.0, 0.5: 100.0, inf: 100.0}, 0.095),
        ({0.1: 90.0, 0.5: 100.0, inf: 100.0}, 0.3),
        ({0.1: 90.0, 0.5: 94.0, inf: 100.0}, 0.5),
    ],
)
def test_the_operator_is_late_if_its_event_loop_is(counts: dict[float, float], late_s: float) -> None:
    what, worst_s = measure_lateness([0.0], [0.0], [0.0], operator_late=counts).worst

    assert what == "the operator worked"
    assert worst_s == pytest.approx(late_s)


def test_a_machine_that_keeps_up_is_fast_enough() -> None:
    assert find_shortage(Lateness({"requests were sent": 0.2}), REQUESTS, speed=2.0) is None


def test_a_machine_is_too_slow_if_it_is_late_by_a_twentieth_of_the_deadlines_in_real_time() -> None:
    shortage = find_shortage(Lateness({"requests were sent": 0.6, "the API server answered": 0.1}), REQUESTS, speed=2.0)

    assert shortage is not None
    assert "too slow at --speed 2: requests were sent 0.60 s late" in shortage
    assert "Try --speed 0.5" in shortage
