"""Whose failure the end of a pod is, and which pods are waited for no longer. Times from 1000 s, as in the samples."""

import pytest

from perllm.cluster.pod import LINGER_S, Pod, PodPhase
from perllm.cluster.pod_ends import PodPatience, call_end, is_lost, is_overdue, is_refusal, next_look_s
from unit.controller.samples import bound, failed, refused, running, succeeded

PATIENCE = PodPatience(start_s=300.0, mistake_s=30.0)
DUE_S = 1060.0


@pytest.mark.parametrize(
    ("pod", "is_one"),
    [
        (refused(), True),
        (refused(reason="UnexpectedAdmissionError"), True),
        (failed(), False),
        (failed(exit_code=None), True),
        (failed(is_deleting=True, was_deleted=True), True),
        (failed(is_deleting=True), False),
        (running(is_deleting=True), False),
        (failed(reason="DeadlineExceeded", exit_code=None), False),
        (failed(reason="DeadlineExceeded", is_disrupted=True), False),
        (failed(culprit="fetch", exit_code=1, started_s=None), False),
    ],
    ids=[
        "not admitted",
        "broken device plugin",
        "own error",
        "end unknown",
        "killed by its deletion",
        "deleted after its failure",
        "deleted while it runs",
        "activeDeadlineSeconds before it ran",
        "activeDeadlineSeconds",
        "init container",
    ],
)
def test_a_refusal_is_what_says_nothing_of_the_task(pod: Pod, is_one: bool) -> None:
    assert is_refusal(pod) is is_one


def test_a_pod_that_outlived_its_own_limit_is_not_lost() -> None:
    assert is_lost(failed(exit_code=None))
    assert not is_lost(failed(exit_code=None, reason="DeadlineExceeded"))


class TestStart:
    def test_is_waited_for_until_the_timeout_and_is_the_nodes_failure_then(self) -> None:
        pod = bound(idle_since_s=1001.0, wait_reason="ErrImagePull", wait_message="no route to registry")
        assert call_end(pod, PATIENCE, DUE_S, 1300.9) is pod
        assert next_look_s(pod, PATIENCE, DUE_S) == 1301.0
        late = call_end(pod, PATIENCE, DUE_S, 1301.0)
        assert (late.phase, late.reason) == (PodPhase.FAILED, "StartTimeout")
        last = "last report of the node: ErrImagePull: no route to registry"
        assert late.message == f"no container started within 300 s; {last}"
        assert is_refusal(late)

    @pytest.mark.parametrize("reason", ["InvalidImageName", "CreateContainerConfigError"])
    def test_that_cannot_be_is_the_tasks_failure_and_is_called_sooner(self, reason: str) -> None:
        pod = bound(idle_since_s=1001.0, wait_reason=reason, wait_message='secret "key" not found')
        assert call_end(pod, PATIENCE, DUE_S, 1030.9) is pod
        wrong = call_end(pod, PATIENCE, DUE_S, 1031.0)
        assert (wrong.phase, wrong.reason, wrong.message) == (PodPhase.FAILED, reason, 'secret "key" not found')
        assert not is_refusal(wrong)

    def test_of_a_pod_that_works_is_waited_for_no_more(self) -> None:
        for pod in (running(), bound(), bound(idle_since_s=1001.0, is_deleting=True)):
            assert call_end(pod, PATIENCE, DUE_S, 9999.0) is pod
            assert next_look_s(pod, PATIENCE, DUE_S) is None


class TestHelpers:
    @pytest.mark.parametrize(("code", "phase"), [(0, PodPhase.SUCCEEDED), (3, PodPhase.FAILED)])
    def test_have_some_time_after_the_first_container(self, code: int, phase: PodPhase) -> None:
        pod = running(exit_code=code, finished_s=1010.0, linger_s=LINGER_S)
        assert call_end(pod, PATIENCE, DUE_S, 1039.9) is pod
        assert call_end(pod, PATIENCE, DUE_S, 1040.0).phase is phase
        assert next_look_s(pod, PATIENCE, DUE_S) == 1040.0

    def test_have_it_until_the_deadline_only(self) -> None:
        pod = running(exit_code=0, finished_s=1050.0)
        assert call_end(pod, PATIENCE, DUE_S, DUE_S).phase is PodPhase.SUCCEEDED
        late = running(exit_code=0, finished_s=1070.0)
        assert call_end(late, PATIENCE, DUE_S, 1070.0).phase is PodPhase.SUCCEEDED


class TestPlace:
    def test_is_given_up_when_the_work_is_over_and_others_had_their_time(self) -> None:
        beside_proxy, beside_sidecar = succeeded(linger_s=0.0), succeeded(linger_s=LINGER_S)
        assert is_overdue(beside_proxy, 1010.0)
        assert not is_overdue(beside_sidecar, 1039.9)
        assert is_overdue(beside_sidecar, 1040.0)
        assert next_look_s(beside_sidecar, PATIENCE, DUE_S) == 1040.0

    def test_is_given_up_at_once_where_nothing_ever_ran(self) -> None:
        assert is_overdue(refused(linger_s=LINGER_S), 1001.0)

    def test_is_given_up_once(self) -> None:
        for pod in (succeeded(), succeeded(linger_s=0.0, is_deleting=True), running(linger_s=0.0)):
            assert not is_overdue(pod, 9999.0)
