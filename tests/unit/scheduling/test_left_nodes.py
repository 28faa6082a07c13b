"""What ends badly on a node after that has left is no evidence against another that joins by its name."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from perllm.placement.circuit import Attempt, CircuitChange
from perllm.placement.circuits import TRIP
from perllm.placement.rehearsal import OtherScheduler
from perllm.scheduling.scheduler import Scheduler
from unit.placement.cluster_of import make_node, make_request
from unit.placement.records import make_decision
from unit.scheduling.schedulers import UPLINK, make_scheduler


@pytest.mark.parametrize(
    "note",
    [
        lambda scheduler, attempt: scheduler.note_refused(attempt, "GPU is lost"),
        lambda scheduler, attempt: scheduler.note_failed(attempt, "exit code 1"),
    ],
    ids=["refused", "failed"],
)
def test_bad_ends_count_only_while_their_node_is_there(
    note: Callable[[Scheduler, Attempt], list[CircuitChange]],
) -> None:
    made = make_scheduler(*map(make_node, "abcd"), now_s=lambda: 1000.0)
    scheduler, circuits = made.scheduler, made.parts.circuits
    ends = [Attempt(f"t{number}", "team", "m", "a") for number in range(2 * TRIP)]
    for number in range(TRIP):
        scheduler.note_succeeded(Attempt(f"other{number}", "team", "m", "b"))
    scheduler.remove_node("a")
    assert [change for end in ends[:TRIP] for change in note(scheduler, end)] == []
    scheduler.put_node(make_node("a"), UPLINK)
    note(scheduler, ends[TRIP])
    assert circuits.of("a") == []
    for end in ends[TRIP:]:
        note(scheduler, end)
    assert len(circuits.of("a")) == 1


@pytest.mark.parametrize("is_seen_to_leave", [True, False])
def test_a_node_that_is_created_again_under_its_name_begins_without_evidence(*, is_seen_to_leave: bool) -> None:
    """It may be another machine; if it is the same and still broken, as few pods show that again as the first time."""
    made = make_scheduler(*map(make_node, "abcd"), now_s=lambda: 1000.0)
    scheduler, circuits = made.scheduler, made.parts.circuits
    for number in range(TRIP):
        scheduler.note_refused(Attempt(f"t{number}", "team", "m", "a"), "GPU is lost")
    assert len(circuits.of("a")) == 1
    if is_seen_to_leave:
        scheduler.remove_node("a")
    scheduler.put_node(replace(make_node("a"), uid="another"), UPLINK)
    scheduler.note_refused(Attempt("later", "team", "m", "a"), "GPU is lost")
    assert circuits.of("a") == []


def test_a_node_that_returns_with_other_gpus_is_not_measured_by_what_tasks_took_on_the_former_ones() -> None:
    made = make_scheduler(make_node("a", gpu_type="H100"), now_s=lambda: 1000.0)
    scheduler, request = made.scheduler, make_request()
    scheduler.decide(request, ["a"])
    scheduler.cancel(request.task_id)
    scheduler.remove_node("a")
    scheduler.put_node(make_node("a", gpu_type="T4"), UPLINK)
    assert scheduler.consider(request).arms.work[0] < 2.0


def test_what_becomes_of_a_counterfactual_is_not_known_while_its_node_does_not_answer() -> None:
    made = make_scheduler(make_node("a"), now_s=lambda: 1000.0, other=OtherScheduler.KUBE_SCHEDULER)
    scheduler, request = made.scheduler, make_request("t")
    decision = make_decision(task_id="t", counterfactual=scheduler.rehearse(request))
    assert scheduler.review(decision, 2000.0, None) is not None
    scheduler.put_node(replace(make_node("a"), is_open=False, answers=False), UPLINK)
    assert scheduler.review(decision, 2000.0, None) is None
    scheduler.put_node(make_node("a"), UPLINK)
    assert scheduler.review(decision, 2000.0, None) is not None
