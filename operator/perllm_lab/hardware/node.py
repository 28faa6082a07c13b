"""One simulated node: pods start, their input arrives, the model loads, the engines run them."""

from collections.abc import Callable
from heapq import heappop, heappush
from math import inf

from numpy.random import Generator

from perllm_lab.hardware.engine import Engine, EngineRun
from perllm_lab.hardware.gpu import GpuType, Number
from perllm_lab.hardware.job import Finished, Job, JobPhase, RunningJob
from perllm_lab.hardware.link import LinkType, Uplink
from perllm_lab.hardware.shared_gpu import SharedGpu

__all__ = ["Finished", "Job", "SimulatedNode", "unloaded_latency_s"]


class SimulatedNode:
    """Event-driven simulation of one node in simulated seconds.

    A job goes pod start (unless it is a request) -> transfer -> model load (its first time; the model then stays) ->
    the GPU with the fewest tasks, which has an engine for each model -> wait for a slot -> prefill -> decode. Calls
    must not go back in time; each costs O(log jobs + GPUs) per event that became due.

    Args:
        gpu: Type of each of its GPUs; idle power is per GPU.
        link: Its only uplink.
        rng: The source of the variation of the uplink.
        resident: Whether models are loaded from the start.
        gpus: How many GPUs, each with engines of its own.
        now_s: When the node is powered on.
        on_decode: Is called with the key of each job whose prompt has been processed; must not call the node.
    """

    def __init__(
        self,
        gpu: GpuType,
        link: LinkType,
        rng: Generator,
        *,
        resident: bool = False,
        gpus: int = 1,
        now_s: float = 0.0,
        on_decode: Callable[[str], None] | None = None,
    ) -> None:
        self.speed_factor = 1.0
        self.gpu = gpu
        self.link = link
        self._now_s = now_s
        self._gpus = [SharedGpu(gpu, now_s=now_s) for _ in range(gpus)]
        self._engines = [engine for each in self._gpus for engine in each.engines]
        self._uplink = Uplink(link, rng, now_s=now_s)
        self._tasks: dict[str, RunningJob] = {}
        self._opening: list[tuple[float, int, RunningJob]] = []
        self._tickets = 0
        self._resident = resident
        self._loaded_at_s: dict[str, float] = {}
        self._awaiting: dict[str, list[RunningJob]] = {}
        self._finished: list[Finished] = []
        self._on_decode = on_decode
        self._powered = True
        self._due_s = inf

    @property
    def energy_j(self) -> float:
        """Joules the node has used so far."""
        return sum(engine.energy_j for engine in self._metered())

    @property
    def idle_energy_j(self) -> float:
        """The part of `energy_j` that belongs to no job."""
        return sum(engine.idle_energy_j for engine in self._metered())

    @property
    def power_w(self) -> float:
        """Power now."""
        return sum(engine.power_w for engine in self._engines)

    @property
    def received_bytes(self) -> float:
        """Bytes the uplink has carried so far."""
        self._uplink.elapse(self._now_s)
        return self._uplink.received_bytes

    @property
    def bandwidth_bps(self) -> float:
        """The nominal bandwidth times the factor in force, without the random variation."""
        return self._uplink.bandwidth_bps

    @property
    def jobs(self) -> int:
        """Jobs on the node, in any phase."""
        return len(self._tasks)

    @property
    def running(self) -> int:
        """Jobs whose prompt is being processed, or that decode."""
        return sum(engine.tasks - engine.waiting for engine in self._engines)

    @property
    def waiting(self) -> int:
        """Jobs that wait for a place in a batch, or for the model to be loaded."""
        return sum(engine.waiting for engine in self._engines) + sum(map(len, self._awaiting.values()))

    @property
    def prompt_tokens(self) -> int:
        """Prompt tokens processed so far."""
        return sum(engine.prompt_tokens for engine in self._engines)

    @property
    def output_tokens(self) -> float:
        """Tokens generated so far."""
        return sum(engine.output_tokens for engine in self._metered())

    @property
    def is_powered(self) -> bool:
        """Whether the node is on."""
        return self._powered

    def admit(self, job: Job, now_s: float) -> None:
        """Accepts a job. Raises ValueError when its key is already on the node, or the node is off."""
        if job.key in self._tasks:
            raise ValueError(f"job {job.key} is already on this node")
        if not self._powered:
            raise ValueError(f"job {job.key} was given to a node that is off")
        self._run_to(now_s)
        start_s = 0.0 if job.is_request else self.gpu.pod_start_s
        task = self._tasks[job.key] = RunningJob(job, now_s, now_s + start_s)
        self._tickets += 1
        heappush(self._opening, (task.started_s + self.link.rtt_s, self._tickets, task))
        self._plan()

    def advance(self, now_s: float) -> list[Finished]:
        """Advances to `now_s` and returns the jobs that finished since the last call, in order."""
        self._run_to(now_s)
        finished = self._finished
        if finished:
            self._finished = []
        return finished

    def generated(self, key: str) -> int:
        """Returns how many tokens of its answer a job on this node has got so far."""
        task = self._tasks[key]
        if task.engine is None:
            return 0
        task.engine.elapse(self._now_s)
        return task.engine.generated(task.run)

    def next_event_s(self) -> float | None:
        """When the next event is due; None while the node is idle."""
        return None if self._due_s == inf else self._due_s

    def remove(self, key: str, now_s: float) -> Finished | None:
        """Ends a job at once (its pod was deleted) and returns its outcome; None when it is no longer here."""
        self._run_to(now_s)
        task = self._tasks.pop(key, None)
        if task is None:
            return None
        phase, task.phase = task.phase, JobPhase.GONE
        if phase is JobPhase.TRANSFER:
            self._uplink.discard(key, now_s)
        elif phase is JobPhase.MODEL:
            self._awaiting[task.job.model].remove(task)
        elif task.engine is not None:
            task.engine.discard(task.run, now_s)
            self._divide(now_s)
        self._plan()
        return task.outcome(now_s)

    def set_bandwidth_factor(self, factor: float, now_s: float) -> None:
        """Sets the factor of the uplink's capacity from now on; the random variation stays the same."""
        self._run_to(now_s)
        self._uplink.set_factor(factor, now_s)
        self._plan()

    def set_speed_factor(self, factor: float, now_s: float) -> None:
        """Sets the speed of prefill and decode from now on, as a multiple of nominal; power stays the same."""
        self._run_to(now_s)
        self.speed_factor = factor
        for engine in self._engines:
            engine.set_speed_factor(factor, now_s)
        self._plan()

    def power_off(self, now_s: float) -> list[Finished]:
        """Cuts the power: no energy is used from now on. Returns the lost jobs; finished ones are kept."""
        self._run_to(now_s)
        lost = [self.remove(key, now_s) for key in list(self._tasks)]
        self._switch(powered=False)
        return [outcome for outcome in lost if outcome is not None]

    def power_on(self, now_s: float, *, resident: bool = False) -> None:
        """Restores the power with nothing running; models have to be loaded again unless they are resident."""
        self._run_to(now_s)
        self._resident = resident
        self._loaded_at_s.clear()
        self._switch(powered=True)

    def _switch(self, *, powered: bool) -> None:
        self._powered = powered
        for engine in self._engines:
            engine.set_powered(powered, self._now_s)

    def _metered(self) -> list[Engine]:
        for engine in self._engines:
            engine.elapse(self._now_s)
        return self._engines

    def _run_to(self, now_s: float) -> None:
        if now_s < self._now_s:
            raise ValueError(f"time goes back from {self._now_s} to {now_s} s")
        while self._due_s <= now_s:
            self._fire(self._due_s)
            self._plan()
        self._now_s = now_s

    def _plan(self) -> None:
        due_s = self._uplink.next_s
        for engine in self._engines:
            if engine.next_s < due_s:
                due_s = engine.next_s
        opening = self._opening
        while opening and opening[0][2].phase is JobPhase.GONE:
            heappop(opening)
        if opening:
            due_s = min(due_s, opening[0][0])
        for model, waiting in self._awaiting.items():
            if waiting:
                due_s = min(due_s, self._loaded_at_s[model])
        self._due_s = due_s

    def _fire(self, due_s: float) -> None:
        for engine in self._engines:
            if engine.next_s <= due_s:
                self._follow(engine.fire(), due_s)
                self._divide(due_s)
                return
        if self._uplink.next_s <= due_s:
            self._arrive(self._uplink.fire(), due_s)
        elif self._opening and self._opening[0][0] <= due_s:
            _, _, task = heappop(self._opening)
            task.phase = JobPhase.TRANSFER
            self._uplink.add(task.job.key, task.job.input_bytes, due_s)
        else:
            awaiting = self._awaiting
            loaded = [model for model, tasks in awaiting.items() if tasks and self._loaded_at_s[model] <= due_s]
            for task in [task for model in loaded for task in awaiting.pop(model)]:
                self._submit(task, due_s)

    def _arrive(self, key: str | None, now_s: float) -> None:
        if key is None:
            return
        task = self._tasks[key]
        task.transferred_s = now_s
        model = task.job.model
        if model not in self._loaded_at_s:
            self._loaded_at_s[model] = -inf if self._resident else now_s + self.gpu.model_load_s
        if self._loaded_at_s[model] > now_s:
            task.phase = JobPhase.MODEL
            self._awaiting.setdefault(model, []).append(task)
        else:
            self._submit(task, now_s)

    def _submit(self, task: RunningJob, now_s: float) -> None:
        gpu = min(self._gpus, key=lambda each: each.tasks)
        task.phase = JobPhase.ENGINE
        task.engine = engine = gpu.find(task.job.model, self.speed_factor, now_s)
        if engine not in self._engines:
            self._engines.append(engine)
        gpu.divide(now_s, coming=engine)
        engine.submit(task.run, now_s)

    def _divide(self, now_s: float) -> None:
        if len(self._engines) > len(self._gpus):
            for gpu in self._gpus:
                gpu.divide(now_s)

    def _follow(self, run: EngineRun, now_s: float) -> None:
        if not run.is_decoding:
            self._finished.append(self._tasks.pop(run.key).outcome(now_s))
        elif self._on_decode is not None:
            self._on_decode(run.key)


def unloaded_latency_s(
    gpu: GpuType, link: LinkType, *, prompt_tokens: Number, output_tokens: float, input_bytes: Number
) -> Number:
    """Seconds from a pod's arrival to its last token on a node that runs nothing else and has the model loaded.

    For one task, or for arrays of prompts and inputs.
    """
    token_s = gpu.iteration_base_s + gpu.task_s(prompt_tokens + output_tokens / 2)
    inference_s = gpu.lone_prefill_s(prompt_tokens) + output_tokens * token_s
    return gpu.pod_start_s + link.transfer_s(input_bytes) + inference_s
