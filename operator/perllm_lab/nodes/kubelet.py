"""The kubelet of one simulated node: runs the pods bound to it on its machine, and reports about them."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from perllm.api.names import GPU_RESOURCE
from perllm_lab.hardware.node import Finished, Job
from perllm_lab.nodes import status
from perllm_lab.nodes.clock import format_time
from perllm_lab.nodes.ground_truth import PodTruth
from perllm_lab.nodes.machine import JobCallbacks, Machine
from perllm_lab.nodes.pods import BoundPod, PodError, read_job, read_pod
from perllm_lab.nodes.records import pod_truth, run_report
from perllm_lab.nodes.writer import FINAL_PHASES, ForcedDeletion, StatusPatch, Write

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all kubelets of a fleet share: the queue of writes, the ground truth."""

    submit: Callable[[str, Write], None]
    record: Callable[[PodTruth], None]


class Kubelet:
    """Runs the pods of one node. All methods run in the event loop and never wait.

    Attributes:
        refuses: whether the node refuses all pods, as with a broken device plugin.
    """

    def __init__(self, machine: Machine, surroundings: Surroundings) -> None:
        self._machine = machine
        self._spec = machine.spec
        self._around = surroundings
        self._clock = machine.clock
        self._own_clock = self._clock
        self._pods: dict[str, BoundPod] = {}
        self._seen: set[str] = set()
        self.refuses = False

    def see(self, item: Object) -> None:
        """Act on the newest state of a pod bound to this node."""
        if not self._machine.is_up:
            return
        pod = read_pod(item)
        if item["metadata"].get("deletionTimestamp"):
            self._terminate(pod)
        elif pod.uid not in self._seen and item["status"].get("phase") not in FINAL_PHASES:
            self._seen.add(pod.uid)
            self._take(pod, item)

    def forget(self, uid: str) -> None:
        """Drop a deleted pod, running or not."""
        self._seen.discard(uid)
        if uid in self._pods:
            self._stop(uid)

    def lose_pods(self) -> None:
        """Lose all pods with the power of the node; nothing is reported."""
        for uid in list(self._pods):
            self._stop(uid, outcome="Lost")
        self._seen.clear()

    def set_clock(self, ahead_s: float) -> None:
        """Set by how many seconds the times that this node reports are ahead of the true ones."""
        self._own_clock = replace(self._clock, wall_start_s=self._clock.wall_start_s + ahead_s)

    def _take(self, pod: BoundPod, item: Object) -> None:
        now = self._format(self._clock.now_s())
        if item["status"].get("startTime"):
            # An earlier incarnation of this node has started it; a pod never runs twice.
            self._write(pod, status.lost(pod, now=now))
            return
        try:
            self._check_devices()
            self._check_slots(pod)
            job = read_job(item, self._spec.model)
        except PodError as error:
            self._write(pod, status.refused(pod, now=now, reason=error.reason, message=str(error)))
            return
        self._admit(pod, job)

    def _check_devices(self) -> None:
        if self.refuses:
            message = "Pod was rejected: Allocate failed due to rpc error: GPU is lost, which is unexpected"
            raise PodError("UnexpectedAdmissionError", message)

    def _check_slots(self, pod: BoundPod) -> None:
        used, capacity = sum(other.slots for other in self._pods.values()), self._spec.slots
        if used + pod.slots > capacity:
            raise PodError(
                f"OutOf{GPU_RESOURCE}",
                f"Pod was rejected: Node didn't have enough resource: {GPU_RESOURCE}, "
                f"requested: {pod.slots}, used: {used}, capacity: {capacity}",
            )

    def _admit(self, pod: BoundPod, job: Job) -> None:
        self._pods[pod.uid] = pod
        admitted_s = self._machine.start(job, JobCallbacks(on_finish=partial(self._finish, pod)))
        started_s = admitted_s + self._spec.gpu.pod_start_s
        loop = asyncio.get_running_loop()
        loop.call_at(self._clock.loop_s(started_s), self._start, pod, admitted_s, started_s)

    def _start(self, pod: BoundPod, admitted_s: float, started_s: float) -> None:
        if pod.uid in self._pods:
            times = {"admitted": self._format(admitted_s), "started": self._format(started_s)}
            self._write(pod, status.running(pod, **times))

    def _terminate(self, pod: BoundPod) -> None:
        if pod.uid in self._pods:
            self._kill(pod)
        self._seen.add(pod.uid)
        self._around.submit(pod.uid, ForcedDeletion(pod.path, pod.uid))

    def _kill(self, pod: BoundPod) -> None:
        run = self._stop(pod.uid)
        if run and run.started_s <= run.finished_s:
            self._write(pod, self._terminated(pod, run, status.KILLED))

    def _stop(self, uid: str, *, outcome: str = "Deleted") -> Finished | None:
        run = self._machine.stop(uid)
        pod = self._pods.pop(uid, None)
        if pod and run:
            self._record(pod, run, outcome)
        return run

    def _finish(self, pod: BoundPod, run: Finished) -> None:
        del self._pods[pod.uid]
        self._record(pod, run, "Failed" if pod.fails else "Succeeded")
        report = "" if pod.fails else run_report(run, self._own_clock).to_text()
        message = report if pod.message is None else pod.message
        self._write(pod, self._terminated(pod, run, 1 if pod.fails else 0, message))

    def _terminated(self, pod: BoundPod, run: Finished, exit_code: int, message: str = "") -> Object:
        return status.terminated(
            pod,
            admitted=self._format(run.admitted_s),
            started=self._format(run.started_s),
            finished=self._format(run.finished_s),
            exit_code=exit_code,
            message=message,
        )

    def _record(self, pod: BoundPod, run: Finished, outcome: str) -> None:
        self._around.record(pod_truth(pod, run, self._spec, self._clock, outcome=outcome))

    def _write(self, pod: BoundPod, body: Object) -> None:
        self._around.submit(pod.uid, StatusPatch(pod.path, body))

    def _format(self, simulated_s: float) -> str:
        return format_time(self._own_clock.wall(simulated_s))
