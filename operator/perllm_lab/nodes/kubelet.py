"""The kubelet of one simulated node: runs the pods bound to it on the simulated hardware, in real time."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from numpy.random import Generator

from perllm.api.names import GPU_RESOURCE
from perllm_lab.hardware.node import Finished, Job, SimulatedNode
from perllm_lab.hardware.scenario import NodeSpec
from perllm_lab.nodes import status
from perllm_lab.nodes.clock import Clock, format_time
from perllm_lab.nodes.ground_truth import NodeTruth, PodTruth
from perllm_lab.nodes.pods import BoundPod, PodError, read_job, read_pod
from perllm_lab.nodes.records import pod_truth, run_report
from perllm_lab.nodes.writer import FINAL_PHASES, ForcedDeletion, StatusPatch, Write

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all kubelets of a fleet share: the clock, the queue of writes, the ground truth."""

    clock: Clock
    submit: Callable[[str, Write], None]
    record: Callable[[PodTruth], None]


@dataclass(frozen=True, slots=True)
class HardwareReading:
    """The meters of a node at one moment, in joules, watts and bytes that `speed` does not scale."""

    energy_j: float
    power_w: float
    received_bytes: float


class Kubelet:
    """Runs one node. All methods run in the event loop and never wait.

    Attributes:
        refuses: whether the node refuses all pods, as with a broken device plugin.
    """

    def __init__(self, spec: NodeSpec, rng: Generator, surroundings: Surroundings) -> None:
        self.spec = spec
        self._rng = rng
        self._around = surroundings
        self._clock = surroundings.clock
        self._own_clock = self._clock
        self._now_s = self._clock.now_s()
        self._node = self._power_on()
        self._past = HardwareReading(0.0, 0.0, 0.0)
        self._past_idle_j = 0.0
        self._runs = 0
        self._pods: dict[str, BoundPod] = {}
        self._seen: set[str] = set()
        self._timer: asyncio.TimerHandle | None = None
        self.is_up = True
        self.refuses = False

    def see(self, item: Object) -> None:
        """Act on the newest state of a pod bound to this node."""
        if not self.is_up:
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

    def sample(self) -> HardwareReading:
        """Advance the hardware to the present and read its meters."""
        self._step()
        return HardwareReading(self._node.energy_j, self._node.power_w, self._node.received_bytes)

    def truth(self) -> NodeTruth:
        """Return the node's totals, including those before a reboot."""
        now = self.sample() if self.is_up else HardwareReading(0.0, 0.0, 0.0)
        return NodeTruth(
            tier=self.spec.tier,
            gpu=self.spec.gpu.product,
            energy_j=self._past.energy_j + now.energy_j,
            idle_energy_j=self._past_idle_j + (self._node.idle_energy_j if self.is_up else 0.0),
            received_bytes=self._past.received_bytes + now.received_bytes,
            runs=self._runs,
        )

    def cut_power(self) -> None:
        """Cut the power: running pods are lost, and nothing is reported."""
        if not self.is_up:
            return
        for uid in list(self._pods):
            self._stop(uid, outcome="Lost")
        now = self.sample()
        self._past = HardwareReading(
            self._past.energy_j + now.energy_j, 0.0, self._past.received_bytes + now.received_bytes
        )
        self._past_idle_j += self._node.idle_energy_j
        self._seen.clear()
        self.is_up = False
        self.close()

    def boot(self) -> None:
        """Boot the node with nothing running, and its model loaded only if it is resident."""
        if self.is_up:
            return
        self._now_s = max(self._now_s, self._clock.now_s())
        self._node = self._power_on()
        self.is_up = True

    def set_clock(self, ahead_s: float) -> None:
        """Set by how many seconds the times that this node reports are ahead of the true ones."""
        self._own_clock = replace(self._clock, wall_start_s=self._clock.wall_start_s + ahead_s)

    def close(self) -> None:
        """Stop the node's timer."""
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _power_on(self) -> SimulatedNode:
        spec = self.spec
        return SimulatedNode(spec.gpu, spec.link, self._rng, now_s=self._now_s, resident=spec.resident, gpus=spec.gpus)

    def _take(self, pod: BoundPod, item: Object) -> None:
        now = self._format(self._clock.now_s())
        if item["status"].get("startTime"):
            # An earlier incarnation of this node has started it; a pod never runs twice.
            self._write(pod, status.lost(pod, now=now))
            return
        try:
            self._check_devices()
            self._check_slots(pod)
            job = read_job(item)
        except PodError as error:
            self._write(pod, status.refused(pod, now=now, reason=error.reason, message=str(error)))
            return
        self._admit(pod, job)

    def _check_devices(self) -> None:
        if self.refuses:
            message = "Pod was rejected: Allocate failed due to rpc error: GPU is lost, which is unexpected"
            raise PodError("UnexpectedAdmissionError", message)

    def _check_slots(self, pod: BoundPod) -> None:
        used, capacity = sum(other.slots for other in self._pods.values()), self.spec.slots
        if used + pod.slots > capacity:
            raise PodError(
                f"OutOf{GPU_RESOURCE}",
                f"Pod was rejected: Node didn't have enough resource: {GPU_RESOURCE}, "
                f"requested: {pod.slots}, used: {used}, capacity: {capacity}",
            )

    def _admit(self, pod: BoundPod, job: Job) -> None:
        admitted_s = self._step()
        self._pods[pod.uid] = pod
        self._node.admit(job, admitted_s)
        self._plan()
        started_s = admitted_s + self.spec.gpu.pod_start_s
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
        now_s = self._step()
        pod = self._pods.pop(uid, None)
        run = self._node.remove(uid, now_s)
        if pod and run:
            self._record(pod, run, outcome)
        self._plan()
        return run

    def _step(self, due_s: float = 0.0) -> float:
        # A timer may fire early by a rounding error; without `due_s` it would be set again for the same time.
        self._now_s = max(self._now_s, due_s, self._clock.now_s())
        for finished in self._node.advance(self._now_s):
            self._finish(self._pods.pop(finished.job.key), finished)
        self._plan()
        return self._now_s

    def _finish(self, pod: BoundPod, run: Finished) -> None:
        self._runs += 1
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
        self._around.record(pod_truth(pod, run, self.spec, self._clock, outcome=outcome))

    def _write(self, pod: BoundPod, body: Object) -> None:
        self._around.submit(pod.uid, StatusPatch(pod.path, body))

    def _format(self, simulated_s: float) -> str:
        return format_time(self._own_clock.wall(simulated_s))

    def _plan(self) -> None:
        self.close()
        due_s = self._node.next_event_s()
        if due_s is not None:
            self._timer = asyncio.get_running_loop().call_at(self._clock.loop_s(due_s), self._step, due_s)
