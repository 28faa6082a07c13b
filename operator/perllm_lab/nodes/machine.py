"""The hardware of one simulated node in real time; its kubelet and its model server share it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from numpy.random import Generator

from perllm_lab.hardware.node import Finished, Job, SimulatedNode
from perllm_lab.hardware.scenario import NodeSpec
from perllm_lab.nodes.clock import Clock
from perllm_lab.nodes.ground_truth import NodeTruth


@dataclass(frozen=True, slots=True)
class HardwareReading:
    """The meters of a node at one moment, in joules, watts and bytes that `speed` does not scale."""

    energy_j: float
    power_w: float
    received_bytes: float


@dataclass(frozen=True, slots=True)
class EngineReading:
    """The load and the counters of a node's engines, at one moment; the counters start when it boots.

    Attributes:
        running: jobs whose prompt is being processed, or that decode.
        waiting: jobs that wait for one of them to end, or for the model to be loaded.
        prompt_tokens: prompt tokens processed.
        output_tokens: tokens generated.
    """

    running: int
    waiting: int
    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class JobCallbacks:
    """What to call when the prompt of a job has been processed, and when the job has finished by itself."""

    on_finish: Callable[[Finished], None]
    on_decode: Callable[[], None] = lambda: None


class Machine:
    """Runs jobs. All methods run in the event loop and never wait.

    Attributes:
        spec: what it is.
        clock: the lab's.
        is_up: whether it has power.
    """

    def __init__(self, spec: NodeSpec, rng: Generator, clock: Clock) -> None:
        self.spec = spec
        self.clock = clock
        self.is_up = True
        self._rng = rng
        self._now_s = clock.now_s()
        self._node = self._power_on()
        self._past = HardwareReading(0.0, 0.0, 0.0)
        self._past_idle_j = 0.0
        self._runs = 0
        self._jobs: dict[str, JobCallbacks] = {}
        self._due_s: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self, job: Job, callbacks: JobCallbacks) -> float:
        """Start a job and return the simulated time."""
        now_s = self.step()
        self._jobs[job.key] = callbacks
        self._node.admit(job, now_s)
        self._plan()
        return now_s

    def stop(self, key: str) -> Finished | None:
        """End a job and return its outcome; None if it is no longer here. Nothing is called."""
        now_s = self.step()
        self._jobs.pop(key, None)
        run = self._node.remove(key, now_s)
        self._plan()
        return run

    def generated(self, key: str) -> int:
        """Return how many tokens of its answer a running job had got at the last step."""
        return self._node.generated(key)

    def step(self) -> float:
        """Advance the hardware to the present, and return the simulated time."""
        self._now_s = max(self._now_s, self.clock.now_s())
        for finished in self._node.advance(self._now_s):
            self._runs += 1
            self._jobs.pop(finished.job.key).on_finish(finished)
        self._plan()
        return self._now_s

    def sample(self) -> HardwareReading:
        """Advance the hardware to the present and read its meters."""
        self.step()
        return HardwareReading(self._node.energy_j, self._node.power_w, self._node.received_bytes)

    def sample_engines(self) -> EngineReading:
        """Advance the hardware to the present and read the load and the counters of its engines."""
        self.step()
        node = self._node
        return EngineReading(node.running, node.waiting, node.prompt_tokens, int(node.output_tokens))

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
        """Cut the power, once all jobs have been stopped."""
        now = self.sample()
        self._past = HardwareReading(
            self._past.energy_j + now.energy_j, 0.0, self._past.received_bytes + now.received_bytes
        )
        self._past_idle_j += self._node.idle_energy_j
        self.is_up = False
        self._stop_timer()

    def boot(self) -> None:
        """Boot with nothing running, and the model loaded only if it is resident."""
        self._now_s = max(self._now_s, self.clock.now_s())
        self._node = self._power_on()
        self.is_up = True

    def _power_on(self) -> SimulatedNode:
        spec = self.spec
        return SimulatedNode(
            spec.gpu,
            spec.link,
            self._rng,
            now_s=self._now_s,
            resident=spec.resident,
            gpus=spec.gpus,
            on_decode=self._decode,
        )

    def _decode(self, key: str) -> None:
        self._jobs[key].on_decode()

    def _plan(self) -> None:
        due_s = self._node.next_event_s()
        if due_s == self._due_s:
            return
        self._stop_timer()
        if due_s is not None:
            self._due_s = due_s
            self._timer = asyncio.get_running_loop().call_at(self.clock.loop_s(due_s), self._fire, due_s)

    def _fire(self, due_s: float) -> None:
        # A timer may fire early by a rounding error; without `due_s` it would be set again for the same time.
        self._now_s = max(self._now_s, due_s)
        self._due_s = None
        self.step()

    def _stop_timer(self) -> None:
        self._due_s = None
        if self._timer:
            self._timer.cancel()
            self._timer = None
