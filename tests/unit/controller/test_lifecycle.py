import dataclasses
import itertools
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perllm.api.report import RunReport, TokenSource
from perllm.api.task import Tier
from perllm.api.task_status import MAX_FAILED_ATTEMPTS, EnergyQuality, Result, TaskPhase, TaskStatus
from perllm.cluster.pod import MAX_ATTEMPT, Misfit, Pod, Timing
from perllm.cluster.pod_ends import FIT_PATIENCE_S
from perllm.controller.conditions import Note
from perllm.controller.lifecycle import (
    MAX_REFUSALS,
    Step,
    advance,
    find_end_s,
    note_wait,
    reject,
)
from perllm.controller.task import Task
from unit.controller.samples import bound, failed, make_own_decision, make_task, refused, running, succeeded, waiting

NOW_S = 1020.0
LATE_S = 1060.0
NEW = TaskStatus()


def step(
    *pods: Pod,
    task: Task | None = None,
    status: TaskStatus = NEW,
    now_s: float = NOW_S,
    suspension: Note | None = None,
    is_current: bool = True,
) -> Step:
    return advance(task or make_task(), status, pods, now_s, suspension=suspension, is_current=is_current)


def conditions(status: TaskStatus) -> dict[str, str]:
    return {condition.type: condition.status for condition in status.conditions}


def reason(status: TaskStatus, kind: str) -> str:
    return next(condition.reason for condition in status.conditions if condition.type == kind)


def time_of(unix_s: float) -> datetime:
    return datetime.fromtimestamp(unix_s, UTC)


GONE = running(is_deleting=True)

# what the pods are, spec, now -> phase, number of the attempt wanted
SITUATIONS: dict[str, tuple[Sequence[Pod], dict[str, object], float, TaskPhase, int | None]] = {
    "no pod yet": ([], {}, NOW_S, TaskPhase.PENDING, 1),
    "pod waits for a node": ([waiting()], {}, NOW_S, TaskPhase.PENDING, None),
    "pod is bound": ([bound()], {}, NOW_S, TaskPhase.SCHEDULED, None),
    "pod runs": ([running()], {}, NOW_S, TaskPhase.RUNNING, None),
    "pod succeeded": ([succeeded()], {}, NOW_S, TaskPhase.SUCCEEDED, None),
    "pod failed, no retries": ([failed()], {}, NOW_S, TaskPhase.FAILED, None),
    "pod failed, retries left": ([failed()], {"retries": 1}, NOW_S, TaskPhase.PENDING, 2),
    "retry runs": ([failed(1), running(2)], {"retries": 1}, NOW_S, TaskPhase.RUNNING, None),
    "retry succeeded": ([failed(1), succeeded(2)], {"retries": 1}, NOW_S, TaskPhase.SUCCEEDED, None),
    "retries used up": ([failed(1), failed(2)], {"retries": 1}, NOW_S, TaskPhase.FAILED, None),
    "node refused": ([refused()], {}, NOW_S, TaskPhase.PENDING, 2),
    "evicted": ([failed(reason="Evicted")], {}, NOW_S, TaskPhase.PENDING, 2),
    "preempted": ([failed(reason="Preempting")], {}, NOW_S, TaskPhase.PENDING, 2),
    "stopped with its node": ([failed(is_disrupted=True)], {}, NOW_S, TaskPhase.PENDING, 2),
    "killed by its deletion": ([failed(is_deleting=True, was_deleted=True)], {}, NOW_S, TaskPhase.PENDING, 2),
    "refusals are no retries": ([failed(1), refused(2)], {"retries": 1}, NOW_S, TaskPhase.PENDING, 3),
    "failure after a refusal": ([refused(1), failed(2)], {}, NOW_S, TaskPhase.FAILED, None),
    "node lost, pod being deleted": ([GONE], {}, NOW_S, TaskPhase.PENDING, 2),
    "successor of a lost pod": ([GONE, bound(2)], {}, NOW_S, TaskPhase.SCHEDULED, None),
    "deletion asked for after success": ([succeeded(is_deleting=True)], {}, NOW_S, TaskPhase.SUCCEEDED, None),
    "late and running": ([running()], {}, LATE_S, TaskPhase.RUNNING, None),
    "late and still waiting": ([], {}, LATE_S, TaskPhase.PENDING, 1),
    "late, to be terminated": ([running()], {"onDeadlineMissed": "Terminate"}, LATE_S, TaskPhase.FAILED, None),
    "late and waiting, to be terminated": ([], {"onDeadlineMissed": "Terminate"}, LATE_S, TaskPhase.FAILED, None),
    "just in time": ([running()], {"onDeadlineMissed": "Terminate"}, LATE_S - 0.001, TaskPhase.RUNNING, None),
    "complete, seen late": ([succeeded()], {"onDeadlineMissed": "Terminate"}, LATE_S, TaskPhase.SUCCEEDED, None),
}


@pytest.mark.parametrize("situation", SITUATIONS)
def test_the_phase_follows_from_what_is(situation: str) -> None:
    pods, spec, now_s, phase, attempt = SITUATIONS[situation]
    result = step(*pods, task=make_task(**spec), now_s=now_s)
    assert (result.status.phase, result.attempt) == (phase, attempt)


def test_a_task_does_not_miss_its_deadline_while_the_end_of_its_pod_may_not_be_known() -> None:
    task = make_task(onDeadlineMissed="Terminate")
    held = step(running(), task=task, now_s=LATE_S, is_current=False).status
    assert (held.phase, held.deadline_met) == (TaskPhase.RUNNING, None)
    in_time = step(succeeded(finished_s=LATE_S - 1.0), task=task, status=held, now_s=LATE_S + 5.0).status
    assert (in_time.phase, in_time.deadline_met) == (TaskPhase.SUCCEEDED, True)
    assert step(running(), task=task, status=held, now_s=LATE_S + 5.0).status.phase is TaskPhase.FAILED


@pytest.mark.parametrize("pods", [[], [waiting()], [failed()]], ids=["no pod", "not placed", "failed"])
def test_a_task_that_cannot_have_ended_in_time_misses_its_deadline_at_once(pods: list[Pod]) -> None:
    task = make_task(onDeadlineMissed="Terminate", retries=1)
    assert step(*pods, task=task, now_s=LATE_S, is_current=False).status.phase is TaskPhase.FAILED


@pytest.mark.parametrize("before", SITUATIONS)
def test_asking_again_changes_nothing_whatever_was_before(before: str) -> None:
    old_pods, spec, then_s, _, _ = SITUATIONS[before]
    task = make_task(**spec)
    status = advance(task, NEW, old_pods, then_s).status
    for pods, _, now_s, _, _ in SITUATIONS.values():
        once = advance(task, status, pods, now_s)
        assert advance(task, once.status, pods, now_s) == once


POD = st.builds(
    lambda make, attempt, is_deleting, is_disrupted: make(attempt, is_deleting=is_deleting, is_disrupted=is_disrupted),
    st.sampled_from([waiting, bound, running, succeeded, failed, refused]),
    st.integers(1, 15),
    st.booleans(),
    st.booleans(),
)


@settings(deadline=None)
@given(
    st.lists(POD, max_size=14, unique_by=lambda pod: pod.attempt),
    st.integers(0, 3),
    st.floats(1000, 1100),
    st.sampled_from(["Continue", "Terminate"]),
)
def test_a_task_ends_or_has_a_pod_or_wants_a_new_one(
    pods: list[Pod], retries: int, now_s: float, on_missed: str
) -> None:
    task = make_task(retries=retries, onDeadlineMissed=on_missed)
    result = advance(task, NEW, pods, now_s)
    assert advance(task, result.status, pods, now_s) == result
    newest = max((pod.attempt for pod in pods), default=0)
    is_alive = bool(pods) and not max(pods, key=lambda pod: pod.attempt).is_finished
    assert result.status.phase.is_final or result.attempt == newest + 1 or (is_alive and result.attempt is None)
    assert not result.doomed or result.status.phase.is_final


def test_a_status_in_which_nothing_changes_is_not_even_copied() -> None:
    for make in (waiting, bound, running, succeeded):
        status = step(make()).status
        assert step(make(), status=status).status is status


class TestAcceptance:
    def test_is_noted_with_the_time_of_receipt(self) -> None:
        status = step().status
        assert (status.received_time, status.observed_generation) == (time_of(1000), 1)
        assert conditions(status) == {"Accepted": "True", "Scheduled": "False", "Finished": "False"}

    def test_is_withheld_from_a_spec_that_cannot_be_understood(self) -> None:
        task = Task("lab/t", "lab", "t", "uid-t", 1, None, "spec.deadline: must be more than 0s", 1000.0)
        status = step(task=task).status
        assert (status.phase, status.message) == (TaskPhase.REJECTED, "spec.deadline: must be more than 0s")
        assert (reason(status, "Accepted"), conditions(status)["Accepted"]) == ("InvalidSpec", "False")
        assert step(task=task, status=status, now_s=NOW_S + 5).status == status
        assert step(task=dataclasses.replace(task, generation=2), status=status).status.observed_generation == 2

    def test_can_be_revoked_before_the_task_ran(self) -> None:
        status = reject(make_task(), step().status, "Infeasible", "no node is fast enough", NOW_S)
        assert (status.phase, status.message, status.deadline_met) == (
            TaskPhase.REJECTED,
            "no node is fast enough",
            False,
        )
        assert conditions(status)["Accepted"] == conditions(status)["Completed"] == "False"
        assert step(status=status, now_s=NOW_S + 5).status == status

    def test_that_is_revoked_leaves_no_condition_true(self) -> None:
        status = reject(make_task(), step().status, "Infeasible", "no node is fast enough", NOW_S)
        assert conditions(status) == {
            "Accepted": "False",
            "Scheduled": "False",
            "Completed": "False",
            "DeadlineMet": "False",
            "Finished": "True",
        }
        assert reason(status, "Scheduled") == reason(status, "Finished") == "Infeasible"

    def test_of_a_task_that_has_run_and_failed_ends_as_a_failure(self) -> None:
        status = step(failed(), task=make_task(retries=1)).status
        assert reject(make_task(), status, "Infeasible", "too late now", NOW_S).phase is TaskPhase.FAILED

    @pytest.mark.parametrize("pod", [running(), succeeded(), failed()], ids=["runs", "succeeded", "failed"])
    def test_follows_changes_of_the_spec_also_after_the_end(self, pod: Pod) -> None:
        before = step(pod).status
        after = step(pod, task=dataclasses.replace(make_task(), generation=2), status=before).status
        assert after.observed_generation == 2
        assert {one.observed_generation for one in after.conditions} == {2}


class TestMessages:
    def test_of_the_scheduler_are_in_message_and_condition(self) -> None:
        pod = waiting(wait_reason="Unschedulable", wait_message="0/2 nodes are available: 2 Insufficient cpu.")
        status = step(pod).status
        assert status.message == "waiting for a node: 0/2 nodes are available: 2 Insufficient cpu."
        assert reason(status, "Scheduled") == "Unschedulable"

    def test_what_a_task_waited_for_before_it_had_a_pod_is_part_of_its_decision(self) -> None:
        note = Note("Waiting", "waiting: a node without room is worth more")
        status = note_wait(make_task(), step().status, note, "", NOW_S)
        status = step(waiting(), status=status).status
        placed = step(bound(decision_record=make_own_decision().to_record()), status=status).status
        assert placed.decision is not None
        assert placed.decision.waited_for == "waiting: a node without room is worth more"

    def test_a_task_that_was_placed_at_once_waited_for_nothing(self) -> None:
        placed = step(bound(decision_record=make_own_decision().to_record()), status=step().status).status
        assert placed.decision is not None
        assert placed.decision.waited_for is None

    def test_of_kubelet_are_in_the_message(self) -> None:
        pod = bound(idle_since_s=1003.0, wait_reason="ErrImagePull", wait_message="manifest unknown")
        assert step(pod).status.message == "the pod is starting: ErrImagePull: manifest unknown"
        usual = bound(idle_since_s=1003.0, wait_reason="ContainerCreating")
        assert step(usual).status.message == "the pod is starting"

    def test_of_the_node_that_refused_are_shown_while_the_next_pod_is_awaited(self) -> None:
        pod = refused(reason="UnexpectedAdmissionError", message="GPU is lost")
        words = "pod t-1 was refused or lost by node n: UnexpectedAdmissionError: GPU is lost"
        assert step(pod).status.message == f"waiting for its turn; {words}"
        last = [refused(number) for number in range(1, MAX_REFUSALS + 1)]
        ended = step(*last, refused(MAX_REFUSALS + 1, message="no room")).status
        assert (
            ended.message
            == "11 pods were refused or lost by their nodes; last: pod t-11 was refused or lost by "
            + ("node n: OutOfcpu: no room")
        )

    def test_of_an_init_container_are_shown_with_its_name(self) -> None:
        pod = failed(exit_code=1, culprit="fetch", message="404 for weights.gguf", started_s=None)
        assert step(pod).status.message == "pod t-1 failed with exit code 1 in container fetch: 404 for weights.gguf"

    def test_of_any_length_fit_into_the_status(self) -> None:
        long = {"reason": "r" * 128, "message": "m" * 1000, "culprit": "c" * 128, "name": "n" * 253, "node": "o" * 253}
        waits = {"wait_reason": "r" * 128, "wait_message": "m" * 1000}
        pods = [failed(**long), refused(**long), bound(**waits), waiting(**waits)]
        for pod in [*pods, refused(MAX_REFUSALS + 1, **long)]:
            status = step(pod).status
            assert TaskStatus.model_validate(status.to_object()) == status


class TestDeletion:
    @pytest.mark.parametrize("pods", [[], [waiting()], [running()], [failed()]])
    def test_that_a_finalizer_holds_up_gets_no_new_pod_and_ends_the_others(self, pods: list[Pod]) -> None:
        task = dataclasses.replace(make_task(retries=3), is_deleting=True)
        result = step(*pods, task=task)
        assert (result.status.phase, reason(result.status, "Finished"), result.attempt) == (
            TaskPhase.FAILED,
            "Deleted",
            None,
        )
        assert result.doomed == tuple(pod for pod in pods if not pod.is_finished)

    def test_does_not_undo_a_success(self) -> None:
        task = dataclasses.replace(make_task(), is_deleting=True)
        assert step(succeeded(), task=task).status.phase is TaskPhase.SUCCEEDED


class TestPlacement:
    def test_shows_the_decision(self) -> None:
        status = step(bound()).status
        assert (status.pod_name, status.node_name, status.tier, status.gpu_type) == ("t-1", "n", Tier.EDGE, "T4")
        assert status.decision is not None
        assert status.decision.predicted_latency == 6.0
        assert conditions(status)["Scheduled"] == conditions(status)["MetricsAvailable"] == "True"

    def test_without_metrics_says_so(self) -> None:
        status = step(bound(decision_record=make_own_decision(metrics_age_s=None).to_record())).status
        assert conditions(status)["MetricsAvailable"] == "False"

    @pytest.mark.parametrize(
        "record",
        [
            None,
            "rubbish",
            make_own_decision(node="elsewhere").to_record(),
            make_own_decision(task_id="another").to_record(),
        ],
    )
    def test_without_a_record_of_its_own_is_still_a_placement(self, record: str | None) -> None:
        status = step(bound(decision_record=record)).status
        assert (status.phase, status.node_name, status.decision) == (TaskPhase.SCHEDULED, "n", None)

    def test_of_a_lost_attempt_is_forgotten(self) -> None:
        before = step(running()).status
        after = step(GONE, status=before).status
        assert (after.pod_name, after.node_name, after.decision, after.start_time) == (None, None, None, None)
        assert conditions(after)["Scheduled"] == "False"

    def test_of_a_new_attempt_replaces_that_of_one_lost_unseen(self) -> None:
        record = make_own_decision(latency_s=9.0).to_record()
        before = step(running(1)).status
        unbound = step(refused(1), waiting(2), status=before).status
        assert (unbound.pod_name, unbound.node_name, unbound.start_time) == ("t-2", None, None)
        assert conditions(unbound)["Scheduled"] == "False"
        for status in (before, unbound):
            after = step(refused(1), running(2, decision_record=record, started_s=1015.0), status=status).status
            assert after.decision is not None
            assert (after.decision.predicted_latency, after.start_time) == (11.0, time_of(1015))


class TestAttempts:
    def test_are_counted_by_the_pods_seen(self) -> None:
        status = step(failed(1), running(2), task=make_task(retries=1)).status
        assert status.attempts == 2

    @pytest.mark.parametrize("left", [[], [refused(1)], [failed(1)]], ids=["nothing", "a refusal", "a failure"])
    def test_never_use_a_number_again(self, left: list[Pod]) -> None:
        status = step(*left, running(2), task=make_task(retries=1)).status
        result = step(*left, task=make_task(retries=1), status=status)
        assert result.attempt == 3

    def test_that_failed_count_when_their_pods_are_gone(self) -> None:
        task = make_task(retries=1)
        status = step(failed(1), task=task).status
        assert status.failed_attempts == (1,)
        assert step(failed(2), task=task, status=status).status.phase is TaskPhase.FAILED
        assert step(refused(2), task=task, status=status).attempt == 3

    def test_that_nodes_refuse_or_lose_come_to_an_end(self) -> None:
        pods = [refused(number) for number in range(1, MAX_REFUSALS + 1)]
        assert step(*pods).attempt == MAX_REFUSALS + 1
        status = step(*pods, refused(MAX_REFUSALS + 1)).status
        assert (status.phase, reason(status, "Completed")) == (TaskPhase.FAILED, "TooManyRefusals")


class TestSuccess:
    REPORT = {  # noqa: RUF012
        "transferSeconds": 1.5,
        "inferenceSeconds": 4.5,
        "timeToFirstTokenSeconds": 0.25,
        "promptTokens": 15,
        "outputTokens": 120,
        "tokenSource": "usage",
    }

    def test_shows_what_was_observed(self) -> None:
        status = step(succeeded(started_s=1003.25, finished_s=1010.5, report=self.REPORT)).status
        observed = status.observed
        assert observed is not None
        assert (observed.queue, observed.transfer, observed.inference, observed.latency) == (3.25, 1.5, 4.5, 10.5)
        assert (observed.time_to_first_token, observed.prompt_tokens, observed.tokens) == (0.25, 15, 120)
        assert observed.token_source is TokenSource.USAGE
        assert (observed.energy_joules, observed.energy_quality) == (None, None)
        assert (status.start_time, status.completion_time) == (time_of(1003.25), time_of(1010.5))
        assert status.deadline_met is True
        assert conditions(status) == {
            "Accepted": "True",
            "Scheduled": "True",
            "MetricsAvailable": "True",
            "Completed": "True",
            "Finished": "True",
            "DeadlineMet": "True",
        }

    def test_shows_the_answer_or_where_it_is(self) -> None:
        answer, elsewhere = {"text": "42", "truncated": True}, {"result": "configmap:answers"}
        assert step(succeeded(report=answer)).status.result == Result(text="42", truncated=True)
        assert step(succeeded(report=elsewhere)).status.result == Result(location="configmap:answers")
        assert step(succeeded(report=self.REPORT)).status.result is None

    def test_after_the_deadline_is_a_success_that_missed_it(self) -> None:
        status = step(succeeded(finished_s=1061.0), now_s=1061.5).status
        assert (status.phase, status.deadline_met, conditions(status)["DeadlineMet"]) == (
            TaskPhase.SUCCEEDED,
            False,
            "False",
        )

    def test_in_time_counts_though_it_was_seen_late(self) -> None:
        missed = step(running(), now_s=LATE_S).status
        assert missed.deadline_met is False
        assert step(succeeded(), status=missed, now_s=LATE_S + 1).status.deadline_met is True

    def test_names_the_pod_that_ran(self) -> None:
        assert step(failed(1), succeeded(2), task=make_task(retries=1)).finished == succeeded(2)

    def test_has_the_start_that_an_earlier_operator_saw_where_a_later_one_cannot_tell(self) -> None:
        before = step(running()).status
        ended = succeeded(started_s=1019.0, finished_s=1019.5, timing=Timing.OPERATOR)
        assert step(ended, status=before).status.start_time == time_of(1004)

    def test_takes_no_time_at_least(self) -> None:
        observed = step(succeeded(started_s=999.0, finished_s=999.5)).status.observed
        assert observed is not None
        assert (observed.queue, observed.latency) == (0.0, 0.0)

    def test_ends_the_pod_that_others_keep_alive(self) -> None:
        behind_proxy = succeeded(linger_s=0.0)
        result = step(behind_proxy)
        assert (result.status.phase, result.doomed, result.finished) == (
            TaskPhase.SUCCEEDED,
            (behind_proxy,),
            behind_proxy,
        )

    def test_is_never_undone(self) -> None:
        status = step(succeeded()).status
        for pods in ([succeeded()], [succeeded(), failed(2)], [succeeded(), running(2)]):
            assert step(*pods, status=status, now_s=NOW_S + 100).status == status

    def test_without_its_pod_has_no_energy_any_more(self) -> None:
        observed = step(status=step(succeeded()).status, now_s=NOW_S + 100).status.observed
        assert observed is not None
        assert (observed.energy_quality, observed.energy_joules) == (EnergyQuality.MISSING, None)


class TestEnd:
    def test_says_why_a_pod_failed(self) -> None:
        status = step(failed(message="out of memory")).status
        assert status.message == "pod t-1 failed with exit code 3: out of memory"
        assert (reason(status, "Completed"), status.deadline_met) == ("PodFailed", False)

    def test_shows_the_problem_that_the_pod_reported_and_how_far_it_got(self) -> None:
        report = RunReport(problem="the server broke off", text="half an")
        status = step(failed(reason="Error", report=report)).status
        assert status.message == "pod t-1 failed with exit code 3: the server broke off"
        assert status.result == Result(text="half an")

    def test_by_the_deadline_shows_how_far_it_got_once_the_pod_has_reported(self) -> None:
        task = make_task(onDeadlineMissed="Terminate")
        status = step(running(), task=task, status=step(running(), task=task).status, now_s=LATE_S).status
        assert status.result is None
        stopped = failed(is_deleting=True, report=RunReport(text="half an"))
        assert step(stopped, task=task, status=status, now_s=LATE_S + 1).status.result == Result(text="half an")

    def test_by_the_deadline_dooms_what_still_runs(self) -> None:
        pods = [refused(1), running(2, is_deleting=True), running(3)]
        result = step(*pods, task=make_task(onDeadlineMissed="Terminate"), now_s=LATE_S)
        assert (result.doomed, reason(result.status, "Completed")) == ((running(3),), "DeadlineExceeded")

    def test_dooms_a_pod_that_appears_afterwards(self) -> None:
        ended = step(failed()).status
        assert step(failed(), waiting(2), status=ended).doomed == (waiting(2),)

    @pytest.mark.parametrize(
        "pods", [[succeeded()], [succeeded(finished_s=1003.0)], [failed()]], ids=["success", "seen late", "failure"]
    )
    def test_counts_from_when_it_is_seen(self, pods: list[Pod]) -> None:
        ended = step(*pods).status
        assert find_end_s(step(*pods, status=ended, now_s=2000).status, 2000.0) == NOW_S


def test_a_restart_finds_every_status_as_it_was() -> None:
    for (pods, spec, now_s, _, _), later_s in itertools.product(SITUATIONS.values(), (0.0, 3.0)):
        task = make_task(**spec)
        before = advance(task, NEW, pods, now_s)
        stored = TaskStatus.model_validate(before.status.to_object())
        after = advance(task, stored, pods, now_s + later_s if before.status.phase.is_final else now_s)
        assert after.status.to_object() == before.status.to_object()


def test_settled_energy_stays() -> None:
    status = step(succeeded()).status
    assert status.observed is not None
    observed = status.observed.model_copy(update={"energy_joules": 5.0, "energy_quality": EnergyQuality.MEASURED})
    settled = status.model_copy(update={"observed": observed})
    assert step(succeeded(), status=settled).status == settled


NO_QUOTA = Note("WaitingForQuota", "waiting for quota")


def test_a_suspended_task_waits_without_a_pod_and_says_why() -> None:
    suspended = step(suspension=NO_QUOTA)
    assert (suspended.status.phase, suspended.attempt) == (TaskPhase.PENDING, None)
    assert suspended.status.message == "waiting for quota"
    assert reason(suspended.status, "Scheduled") == "WaitingForQuota"


def test_a_task_that_is_suspended_while_it_runs_is_stopped_once() -> None:
    first = step(running(), suspension=NO_QUOTA)
    assert [pod.name for pod in first.doomed] == ["t-1"]
    assert (first.status.phase, first.status.node_name) == (TaskPhase.PENDING, None)
    second = step(running(is_deleting=True), status=first.status, suspension=NO_QUOTA)
    assert second.doomed == ()
    assert second.status == first.status


@pytest.mark.parametrize(
    "stopped", [failed(exit_code=143), failed(is_deleting=True, was_deleted=True), running(is_deleting=True)]
)
def test_an_attempt_that_was_stopped_counts_against_nothing(stopped: Pod) -> None:
    status = step(running(), suspension=NO_QUOTA).status
    again = step(stopped, status=status)
    assert (again.attempt, again.cause) == (2, "")
    assert (again.status.failed_attempts, again.status.stopped_attempts) == (None, (1,))


def test_a_task_may_be_stopped_more_often_than_nodes_may_refuse_its_pods() -> None:
    status = NEW
    for attempt in range(1, 3 * MAX_FAILED_ATTEMPTS):
        status = step(running(attempt), status=status, suspension=NO_QUOTA).status
        again = step(failed(attempt, is_deleting=True, was_deleted=True), status=status)
        assert (again.attempt, again.cause) == (attempt + 1, "")


def test_pods_that_nodes_refuse_count_although_the_task_was_stopped_very_often() -> None:
    status = NEW.change(attempts=200, stopped_attempts=tuple(range(137, 201)))
    for attempt in range(201, 201 + MAX_REFUSALS):
        status = step(refused(attempt), status=status).status
    assert status.phase is TaskPhase.PENDING
    assert step(refused(201 + MAX_REFUSALS), status=status).status.phase is TaskPhase.FAILED


def test_a_task_ends_when_pods_cannot_be_numbered_any_more() -> None:
    stopped = tuple(range(MAX_ATTEMPT - MAX_FAILED_ATTEMPTS, MAX_ATTEMPT))
    status = NEW.change(attempts=MAX_ATTEMPT - 1, stopped_attempts=stopped)
    assert step(status=status).attempt == MAX_ATTEMPT
    ended = step(status=status.change(attempts=MAX_ATTEMPT)).status
    assert (ended.phase, reason(ended, "Finished")) == (TaskPhase.FAILED, "TooManyAttempts")


def test_an_attempt_that_ends_well_although_it_was_to_be_stopped_ends_the_task() -> None:
    status = step(running(), suspension=NO_QUOTA).status
    assert step(succeeded(), status=status, suspension=NO_QUOTA).status.phase is TaskPhase.SUCCEEDED


def test_a_pod_that_is_replaced_while_its_task_is_suspended_leaves_its_number_to_the_next_one() -> None:
    misfit = waiting(misfit=Misfit(NOW_S - FIT_PATIENCE_S, "1"), wait_reason="Unschedulable")
    suspended = step(misfit, suspension=NO_QUOTA).status
    assert step(status=suspended).attempt == 1
    assert step(running(), status=suspended).status.phase is TaskPhase.RUNNING
    assert step(failed(), status=suspended).status.phase is TaskPhase.FAILED


def test_a_suspended_task_ends_at_its_deadline_if_it_asks_for_that() -> None:
    task = make_task(onDeadlineMissed="Terminate")
    assert step(task=task, now_s=LATE_S, suspension=NO_QUOTA).status.phase is TaskPhase.FAILED
