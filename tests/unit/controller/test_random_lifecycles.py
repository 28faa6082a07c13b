"""Tasks whose pods live in random ways, while writes come late and the operator crashes: each task ends as it should.

Found so: a task that was suspended while its pod was replaced by another one was not followed any more.
"""

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from perllm.api.task_status import EnergyQuality, TaskPhase, TaskStatus
from perllm.cluster.pod import Misfit, Pod, PodPhase
from perllm.controller.conditions import Note
from perllm.controller.lifecycle import advance
from perllm.controller.retention import Records, may_release
from unit.controller.samples import CREATED_S, bound, failed, make_task, refused, running, succeeded, waiting

SEEDS, STEPS, ROUNDS, ROUND_S, RETRIES = 60, 120, 40, 3.5, 1
SUSPENDED = Note("Suspended", "suspended by spec.suspend")
WEIGHTS = {
    "advance": 8,
    "release": 4,
    "store": 3,
    "crash": 1,
    "suspend": 1,
    "resume": 2,
    "settle": 1,
    "misfit": 4,
    "bind": 5,
    "refuse": 3,
    "start": 5,
    "fail": 4,
    "succeed": 1,
    "succeed_late": 1,
    "delete": 2,
    "stop": 1,
}


class Life:
    """A task, its pods as the API server has them, and its status as the operator and as the API server has it."""

    def __init__(self, random: Random) -> None:
        self.status = self.stored = TaskStatus()
        self.pods: dict[str, Pod] = {}
        self.failed: list[str] = []
        self.succeeded: list[str] = []
        self._task = make_task(deadline="24h", retries=RETRIES)
        self._random = random
        self._now_s = CREATED_S
        self._ended: Pod | None = None
        self._suspension: Note | None = None
        self._made = 0
        self._of_operator: dict[str, Callable[[], None]] = {
            "advance": self._advance,
            "release": self._release,
            "store": self._store,
            "crash": self._crash,
            "suspend": self._suspend,
            "resume": self._resume,
            "settle": self.settle,
        }
        self._of_pods: dict[str, Callable[[Pod], None]] = {
            "misfit": self._misfit,
            "bind": self._bind,
            "refuse": self._refuse,
            "start": self._start,
            "fail": self._fail,
            "succeed": self._succeed,
            "succeed_late": self._succeed_late,
            "delete": self._delete,
            "stop": self._stop,
        }

    @property
    def live_pods(self) -> list[Pod]:
        return [pod for pod in self.pods.values() if not pod.is_finished and not pod.is_deleting]

    def live(self) -> None:
        """Let something happen."""
        self._now_s += self._random.choice([0.2, 1.0, 3.1, 10.0])
        (event,) = self._random.choices(list(WEIGHTS), list(WEIGHTS.values()))
        if event in self._of_operator:
            self._of_operator[event]()
        elif self.pods:
            self._of_pods[event](self._random.choice(list(self.pods.values())))

    def go_well(self) -> None:
        """Let the operator do all that it wants, and each pod what it should do next."""
        self._now_s += ROUND_S
        self._resume()
        self._advance()
        self._store()
        self._release()
        for pod in list(self.pods.values()):
            for event in (self._stop, self._succeed, self._start, self._bind):
                event(pod)

    def settle(self) -> None:
        """If the task has ended, note that its energy will not be known."""
        if self.status.observed is not None:
            observed = self.status.observed.change(energy_quality=EnergyQuality.MISSING)
            self.status = self.status.change(observed=observed)

    def may_release(self, pod: Pod) -> bool:
        records = Records(self.status, is_stored=self.stored == self.status, is_learned=True)
        return may_release(pod, records, self._now_s)

    def _advance(self) -> None:
        """Do what the lifecycle says; the API server may refuse the new pod."""
        gone = [self._ended] if self._ended is not None and self._ended.name not in self.pods else []
        step = advance(self._task, self.status, [*self.pods.values(), *gone], self._now_s, suspension=self._suspension)
        self.status = step.status
        for pod in step.doomed:
            self._delete(pod)
        if step.attempt is not None and self._random.random() < 0.8:
            self._create(step.attempt)

    def _create(self, attempt: int) -> None:
        self._made += 1
        pod = waiting(attempt, uid=f"uid-{self._made}", created_s=self._now_s)
        self.pods.setdefault(pod.name, pod)

    def _release(self) -> None:
        """Let the deleted pods go that may; the operator remembers the last one that had ended."""
        for pod in [one for one in self.pods.values() if one.is_deleting and self.may_release(one)]:
            del self.pods[pod.name]
            if pod.is_finished and (self._ended is None or pod.attempt >= self._ended.attempt):
                self._ended = pod

    def _store(self) -> None:
        self.stored = self.status

    def _crash(self) -> None:
        self.status, self._ended = self.stored, None

    def _suspend(self) -> None:
        self._suspension = SUSPENDED

    def _resume(self) -> None:
        self._suspension = None

    def _misfit(self, pod: Pod) -> None:
        if pod.node is None and pod.misfit is None and not pod.is_deleting:
            self._become(waiting, pod, misfit=Misfit(self._now_s, "1"), wait_reason="Unschedulable")

    def _bind(self, pod: Pod) -> None:
        if pod.node is None and not pod.is_deleting:
            self._become(bound, pod)

    def _refuse(self, pod: Pod) -> None:
        if pod.node is not None and pod.phase is PodPhase.PENDING and not pod.is_deleting:
            self._become(refused, pod)

    def _start(self, pod: Pod) -> None:
        if pod.node is not None and pod.phase is PodPhase.PENDING and not pod.is_deleting:
            self._become(running, pod)

    def _fail(self, pod: Pod) -> None:
        if pod.phase is PodPhase.RUNNING and not pod.is_deleting:
            self._become(failed, pod)
            self.failed.append(pod.name)

    def _succeed(self, pod: Pod) -> None:
        if pod.phase is PodPhase.RUNNING and not pod.is_deleting:
            self._become(succeeded, pod)
            self.succeeded.append(pod.name)

    def _succeed_late(self, pod: Pod) -> None:
        """Let a pod that was to be stopped succeed before it is, while that still decides how the task ends."""
        is_decisive = not self.status.phase.is_final and not self.live_pods and not self.succeeded
        if is_decisive and pod.phase is PodPhase.RUNNING and pod.is_deleting:
            self._become(succeeded, pod, is_deleting=True, gone_by_s=pod.gone_by_s)
            self.succeeded.append(pod.name)

    def _delete(self, pod: Pod) -> None:
        if not pod.is_deleting:
            gone_by_s = self._now_s + (0.0 if pod.node is None else 30.0)
            self.pods[pod.name] = replace(pod, is_deleting=True, gone_by_s=gone_by_s)

    def _stop(self, pod: Pod) -> None:
        """Let a pod that was deleted end on its node."""
        if pod.node is not None and pod.is_deleting and not pod.is_finished:
            self._become(failed, pod, is_deleting=True, gone_by_s=pod.gone_by_s, was_deleted=True, exit_code=143)

    def _become(self, make: Callable[..., Pod], pod: Pod, **fields: Any) -> None:
        self.pods[pod.name] = make(pod.attempt, uid=pod.uid, created_s=pod.created_s, **fields)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_task_has_one_live_pod_at_most_and_ends_as_its_pods_did_and_all_are_released(seed: int) -> None:
    life = Life(Random(seed))
    for let_happen in [*[life.live] * STEPS, *[life.go_well] * ROUNDS]:
        let_happen()
        assert len(life.live_pods) <= 1
    if life.status.phase is TaskPhase.SUCCEEDED:
        assert life.succeeded == [life.status.pod_name]
    else:
        assert life.status.phase is TaskPhase.FAILED
        assert life.succeeded == []
        assert len(life.failed) > RETRIES
    life.settle()
    life.go_well()
    assert [pod for pod in life.pods.values() if not life.may_release(pod)] == []
