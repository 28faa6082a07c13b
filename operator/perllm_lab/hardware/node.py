"""One simulated node: pods start, their input arrives, the model loads, the engine runs them."""

from dataclasses import dataclass
from heapq import heappop, heappush
from math import inf

from numpy.random import Generator

from perllm_lab.hardware.engine import Engine, Run
from perllm_lab.hardware.gpu import GpuType
from perllm_lab.hardware.link import LinkType, Uplink


@dataclass(frozen=True, slots=True)
class Job:
    """What a task asks of a node; `output_tokens` is its true length."""

    key: str
    prompt_tokens: int
    output_tokens: int
    input_bytes: int


@dataclass(frozen=True, slots=True)
class Finished:
    """What really happened to a job. Times in simulated seconds, nan where a removed job never came so far.

    `energy_j` is the job's exact share: its prefill plus an equal share of every decode iteration it was part of.
    """

    job: Job
    admitted_s: float
    started_s: float
    transferred_s: float
    prefill_s: float
    finished_s: float
    energy_j: float
    completed: bool

    @property
    def transfer_s(self) -> float:
        """Seconds from the container's start to the last input byte."""
        return self.transferred_s - self.started_s

    @property
    def inference_s(self) -> float:
        """Seconds from the begin of the prefill to the last token."""
        return self.finished_s - self.prefill_s


class _Task:
    __slots__ = ("admitted_s", "job", "run", "started_s", "transferred_s")

    def __init__(self, job: Job, admitted_s: float, started_s: float) -> None:
        self.job = job
        self.admitted_s = admitted_s
        self.started_s = started_s
        self.transferred_s = float("nan")
        self.run = Run(job.key, job.prompt_tokens, job.output_tokens)


class Node:
    """Event-driven simulation of one node in simulated seconds.

    A job goes pod start -> transfer -> model load (the first time; the model then stays) -> wait for a slot ->
    prefill -> decode. Calls must not go back in time; each costs O(log jobs) per event that became due.
    """

    def __init__(
        self, gpu: GpuType, link: LinkType, rng: Generator, *, resident: bool = False, now_s: float = 0.0
    ) -> None:
        self.gpu = gpu
        self.link = link
        self._now_s = now_s
        self._engine = Engine(gpu, now_s=now_s)
        self._uplink = Uplink(link, rng, now_s=now_s)
        self._tasks: dict[str, _Task] = {}
        self._opening: list[tuple[float, int, str]] = []
        self._opened = 0
        self._loaded_at_s = -inf if resident else inf
        self._loading = resident
        self._awaiting_model: list[str] = []
        self._finished: list[Finished] = []

    @property
    def energy_j(self) -> float:
        """Joules the node has used so far."""
        return self._engine.energy_j

    @property
    def idle_energy_j(self) -> float:
        """The part of `energy_j` that belongs to no job."""
        return self._engine.idle_energy_j

    @property
    def power_w(self) -> float:
        """Power now."""
        return self._engine.power_w

    @property
    def received_bytes(self) -> float:
        """Bytes the uplink has carried so far."""
        return self._uplink.received_bytes

    @property
    def jobs(self) -> int:
        """Jobs on the node, in whatever phase."""
        return len(self._tasks)

    @property
    def batch(self) -> int:
        """Tasks that decode now."""
        return self._engine.batch

    def admit(self, job: Job, now_s: float) -> None:
        """Takes a job in. Raises ValueError when its key is already on the node."""
        if job.key in self._tasks:
            raise ValueError(f"job {job.key} is already on this node")
        self._run_to(now_s)
        started_s = now_s + self.gpu.pod_start_s
        self._tasks[job.key] = _Task(job, now_s, started_s)
        self._opened += 1
        heappush(self._opening, (started_s + self.link.rtt_s, self._opened, job.key))

    def advance(self, now_s: float) -> list[Finished]:
        """Goes on to `now_s` and returns the jobs that finished since the last call, in order."""
        self._run_to(now_s)
        finished, self._finished = self._finished, []
        return finished

    def next_event_s(self) -> float | None:
        """When something happens next; None while the node is idle."""
        due_s = self._next_s()
        return None if due_s == inf else due_s

    def remove(self, key: str, now_s: float) -> Finished | None:
        """Ends a job at once (its pod was deleted) and says what it used; None when it is not here any more."""
        self._run_to(now_s)
        task = self._tasks.pop(key, None)
        if task is None:
            return None
        self._opening = [entry for entry in self._opening if entry[2] != key]
        self._opening.sort()
        self._uplink.discard(key, now_s)
        self._engine.discard(task.run, now_s)
        if key in self._awaiting_model:
            self._awaiting_model.remove(key)
        return _outcome(task, now_s, completed=False)

    def _next_s(self) -> float:
        due_s = min(self._engine.next_s, self._uplink.next_s)
        if self._opening and self._opening[0][0] < due_s:
            due_s = self._opening[0][0]
        if self._awaiting_model and self._loaded_at_s < due_s:
            due_s = self._loaded_at_s
        return due_s

    def _run_to(self, now_s: float) -> None:
        if now_s < self._now_s:
            raise ValueError(f"time goes back from {self._now_s} to {now_s} s")
        while (due_s := self._next_s()) <= now_s:
            self._fire(due_s)
        self._engine.elapse(now_s)
        self._uplink.elapse(now_s)
        self._now_s = now_s

    def _fire(self, due_s: float) -> None:
        if self._engine.next_s <= due_s:
            self._finish(self._engine.fire(), due_s)
        elif self._uplink.next_s <= due_s:
            self._arrive(self._uplink.fire(), due_s)
        elif self._opening and self._opening[0][0] <= due_s:
            key = heappop(self._opening)[2]
            self._uplink.add(key, self._tasks[key].job.input_bytes, due_s)
        else:
            waiting, self._awaiting_model = self._awaiting_model, []
            for key in waiting:
                self._engine.submit(self._tasks[key].run, due_s)

    def _arrive(self, key: str | None, now_s: float) -> None:
        if key is None:
            return
        self._tasks[key].transferred_s = now_s
        if not self._loading:
            self._loading = True
            self._loaded_at_s = now_s + self.gpu.model_load_s
        if self._loaded_at_s > now_s:
            self._awaiting_model.append(key)
        else:
            self._engine.submit(self._tasks[key].run, now_s)

    def _finish(self, run: Run | None, now_s: float) -> None:
        if run is not None:
            self._finished.append(_outcome(self._tasks.pop(run.key), now_s, completed=True))


def _outcome(task: _Task, now_s: float, *, completed: bool) -> Finished:
    return Finished(
        job=task.job,
        admitted_s=task.admitted_s,
        started_s=task.started_s,
        transferred_s=task.transferred_s,
        prefill_s=task.run.prefill_at_s,
        finished_s=now_s,
        energy_j=task.run.energy_j,
        completed=completed,
    )


def unloaded_latency_s(
    gpu: GpuType, link: LinkType, *, prompt_tokens: int, output_tokens: float, input_bytes: int
) -> float:
    """Seconds from a pod's arrival to its last token on a node that runs nothing else and has the model loaded."""
    inference_s = gpu.prefill_s(prompt_tokens) + output_tokens * gpu.iteration_s(1)
    return gpu.pod_start_s + link.transfer_s(input_bytes) + inference_s
