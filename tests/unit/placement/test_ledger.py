import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perllm.placement.ledger import RESERVATION_S, Ledger

ROWS = np.arange(3)


def running(ledger: Ledger) -> list[float]:
    return ledger.running(ROWS).tolist()


def test_a_reservation_counts_at_once() -> None:
    ledger = Ledger()
    ledger.reserve("t", "m", 1, 5e6, 0.0)
    assert running(ledger) == [0, 1, 0]
    assert ledger.running_model("m", ROWS).tolist() == [0, 1, 0]
    assert ledger.running_model("other", ROWS).tolist() == [0, 0, 0]
    assert ledger.demand_bps(ROWS).tolist() == [0, 5e6, 0]


def test_a_task_is_on_one_node_only() -> None:
    ledger = Ledger()
    ledger.reserve("t", "m", 1, 5e6, 0.0)
    ledger.reserve("t", "m", 2, 5e6, 1.0)
    ledger.confirm("t", "m", 0, 5e6, 2.0)
    assert (running(ledger), len(ledger)) == ([1, 0, 0], 1)


def test_a_reservation_that_is_not_carried_out_expires() -> None:
    ledger = Ledger()
    ledger.reserve("lost", "m", 0, 5e6, 0.0)
    ledger.reserve("bound", "m", 1, 5e6, 0.0)
    ledger.confirm("bound", "m", 1, 5e6, 1.0)
    assert ledger.expire(RESERVATION_S - 0.1) == []
    assert ledger.expire(RESERVATION_S) == ["lost"]
    assert running(ledger) == [0, 1, 0]
    assert ledger.demand_bps(ROWS).tolist() == [0, 5e6, 0]


def test_cancelling_takes_back_a_reservation_but_never_a_bound_task() -> None:
    ledger = Ledger()
    ledger.reserve("reserved", "m", 0, 0, 0.0)
    ledger.confirm("bound", "m", 0, 0, 0.0)
    for task_id in ("reserved", "bound", "unknown"):
        ledger.cancel(task_id, 1.0)
    assert running(ledger) == [1, 0, 0]


def test_the_occupancy_of_a_run_is_the_mean_over_its_time() -> None:
    ledger = Ledger()
    ledger.confirm("first", "m", 0, 0, 0.0)
    ledger.confirm("second", "m", 0, 0, 4.0)  # first: 1 task for 4 s, 2 for 4 s, 1 for 2 s
    assert ledger.release("second", 8.0) == pytest.approx(2.0)
    assert ledger.release("first", 10.0) == pytest.approx((4 * 1 + 4 * 2 + 2 * 1) / 10)
    assert ledger.release("first", 10.0) is None


def test_confirming_again_does_not_restart_the_run() -> None:
    ledger = Ledger()
    ledger.confirm("other", "m", 0, 0, 0.0)
    ledger.reserve("t", "m", 0, 0, 0.0)
    ledger.confirm("t", "m", 0, 0, 1.0)
    ledger.release("other", 5.0)
    ledger.confirm("t", "m", 0, 0, 9.0)
    assert ledger.release("t", 10.0) == pytest.approx(1.5)


def test_a_run_of_no_length_has_the_occupancy_of_its_moment() -> None:
    ledger = Ledger()
    ledger.confirm("a", "m", 0, 0, 1.0)
    ledger.confirm("b", "m", 0, 0, 1.0)
    assert ledger.release("b", 1.0) == 2.0


ACTION = st.tuples(
    st.sampled_from(["reserve", "confirm", "cancel", "release", "expire"]), st.integers(0, 5), st.integers(0, 2)
)


@settings(deadline=None)
@given(st.lists(ACTION, max_size=40))
def test_the_counts_always_equal_the_tasks_in_flight(actions: list[tuple[str, int, int]]) -> None:
    ledger, flights, reserved = Ledger(), {}, {}
    for now_s, (action, task, row) in enumerate(actions):
        task_id = f"t{task}"
        if action == "reserve":
            ledger.reserve(task_id, "m", row, 1e6, now_s)
            flights[task_id], reserved[task_id] = row, now_s
        elif action == "confirm":
            ledger.confirm(task_id, "m", row, 1e6, now_s)
            flights[task_id] = row
            reserved.pop(task_id, None)
        elif action == "release" or (action == "cancel" and task_id in reserved):
            getattr(ledger, action)(task_id, now_s)
            flights.pop(task_id, None)
            reserved.pop(task_id, None)
        elif action == "expire":
            late = {one for one, since_s in reserved.items() if since_s + RESERVATION_S <= now_s}
            assert set(ledger.expire(now_s)) == late
            flights = {one: at for one, at in flights.items() if one not in late}
            reserved = {one: since_s for one, since_s in reserved.items() if one not in late}
        expected = [list(flights.values()).count(row) for row in range(3)]
        assert running(ledger) == ledger.running_model("m", ROWS).tolist() == expected
        assert ledger.demand_bps(ROWS) == pytest.approx([1e6 * count for count in expected])
        assert len(ledger) == len(flights)
