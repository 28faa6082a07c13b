"""Jobs of a node: what they ask for, their state on the node, their outcome."""

from dataclasses import dataclass
from enum import IntEnum

from perllm_lab.hardware.engine import Engine, EngineRun


@dataclass(frozen=True, slots=True)
class Job:
    """What a task asks of a node; `output_tokens` is the true length of its answer.

    A request to the node's model server (`is_request`) needs no pod to start. Only tasks of one `model` share a batch.
    """

    key: str
    prompt_tokens: int
    output_tokens: int
    input_bytes: int
    is_request: bool = False
    model: str = ""


@dataclass(frozen=True, slots=True)
class Finished:
    """The true outcome of a job. Times in simulated seconds, nan for steps that a removed job did not reach.

    `energy_j` is the job's exact share: its prefill plus an equal share of every decode iteration it was part of.
    """

    job: Job
    admitted_s: float
    started_s: float
    transferred_s: float
    prefill_s: float
    decode_s: float
    finished_s: float
    energy_j: float

    @property
    def transfer_s(self) -> float:
        """Seconds from the container's start, or the request, to the last input byte."""
        return self.transferred_s - self.started_s

    @property
    def inference_s(self) -> float:
        """Seconds from the begin of the prefill to the last token."""
        return self.finished_s - self.prefill_s


class JobPhase(IntEnum):
    """The step that a job has reached on its node."""

    OPENING = 0
    TRANSFER = 1
    MODEL = 2
    ENGINE = 3
    GONE = 4


class RunningJob:
    """A job on its node."""

    __slots__ = ("admitted_s", "engine", "job", "phase", "run", "started_s", "transferred_s")

    def __init__(self, job: Job, admitted_s: float, started_s: float) -> None:
        self.job = job
        self.admitted_s = admitted_s
        self.started_s = started_s
        self.transferred_s = float("nan")
        self.phase = JobPhase.OPENING
        self.run = EngineRun(job.key, job.prompt_tokens, job.output_tokens)
        self.engine: Engine | None = None

    def outcome(self, now_s: float) -> Finished:
        """Returns its outcome at its end."""
        return Finished(
            job=self.job,
            admitted_s=self.admitted_s,
            started_s=self.started_s,
            transferred_s=self.transferred_s,
            prefill_s=self.run.prefill_at_s,
            decode_s=self.run.decode_at_s,
            finished_s=now_s,
            energy_j=self.run.energy_j,
        )
