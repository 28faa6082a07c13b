"""What became of a prompt: one line of the output, and the sum of all lines."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Self

from pydantic import AwareDatetime, ConfigDict, Field

from perllm.api.base import Joules, Resource, Seconds, Tokens
from perllm.api.served_run import ServedRun
from perllm.api.task_answer import MAX_STORED_LENGTH, TaskAnswer
from perllm.api.task_status import MAX_ANSWER_LENGTH, Observation, Result, TaskPhase, TaskStatus
from perllm.submission.batch import BatchTask
from perllm.text import clean_line, clean_text

DELETED = "the task was deleted before it had finished"


class AnswerLine(Resource):
    """The end of one task, as it is written to the output."""

    model_config = ConfigDict(extra="forbid")

    index: Annotated[int, Field(ge=0)]
    id: str | None = None
    task: str
    phase: TaskPhase | None = None
    text: str | None = None
    truncated: bool | None = None
    finish_reason: str | None = None
    problem: str | None = None
    deadline_met: bool | None = None
    latency_seconds: Seconds | None = None
    energy_joules: Joules | None = None
    completion_time: AwareDatetime | None = None
    node: str | None = None
    prompt_tokens: Tokens | None = None
    output_tokens: Tokens | None = None

    @property
    def is_answered(self) -> bool:
        """Whether the prompt has its answer."""
        return self.phase is TaskPhase.SUCCEEDED

    def with_whole(self, answer: TaskAnswer) -> Self:
        """Return the line with the whole text, of which the status of the task has the beginning."""
        (whole, *_) = answer.answers
        text = None if whole.text is None else clean_text(whole.text, MAX_STORED_LENGTH)
        return self.model_copy(update={"text": text, "truncated": whole.truncated})


def build_line(task: BatchTask, status: TaskStatus) -> AnswerLine:
    """Return the line of a task that has finished."""
    observed, result = status.observed or Observation(), status.result or Result()
    answered = status.phase is TaskPhase.SUCCEEDED
    return AnswerLine(
        index=task.index,
        id=task.id,
        task=task.name,
        phase=status.phase,
        text=None if result.text is None else clean_text(result.text, MAX_ANSWER_LENGTH),
        truncated=result.truncated,
        finish_reason=status.run.finish_reason if status.run else None,
        problem=None if answered else _find_problem(status.message, status.run),
        deadline_met=status.deadline_met,
        latency_seconds=observed.latency,
        energy_joules=observed.energy_joules,
        completion_time=status.completion_time,
        node=status.node_name,
        prompt_tokens=observed.prompt_tokens,
        output_tokens=observed.tokens,
    )


def build_line_of_deleted(task: BatchTask) -> AnswerLine:
    """Return the line of a task that was deleted too early."""
    return AnswerLine(index=task.index, id=task.id, task=task.name, problem=DELETED)


def _find_problem(message: str | None, run: ServedRun | None) -> str:
    return clean_line(message or (run and run.problem) or "unknown")


@dataclass(slots=True)
class Tally:
    """How the prompts of a batch ended, summed up.

    Attributes:
        answered: prompts with an answer.
        rejected: tasks that ended without running, because no node was expected to be in time.
        failed: all other tasks without an answer.
        late: tasks that missed their deadline, whether answered or not.
        output_tokens: generated tokens, as far as they are known.
        energy_j: joules of the tasks whose energy is known.
        measured: number of those tasks.
    """

    answered: int = 0
    rejected: int = 0
    failed: int = 0
    late: int = 0
    output_tokens: int = 0
    energy_j: float = 0.0
    measured: int = 0

    @classmethod
    def of(cls, lines: Iterable[AnswerLine]) -> Self:
        """Return the sum of these lines."""
        tally = cls()
        for line in lines:
            tally.add(line)
        return tally

    @property
    def finished(self) -> int:
        """Number of prompts whose task has ended."""
        return self.answered + self.rejected + self.failed

    def add(self, line: AnswerLine) -> None:
        """Count one more prompt."""
        if line.is_answered:
            self.answered += 1
        elif line.phase is TaskPhase.REJECTED:
            self.rejected += 1
        else:
            self.failed += 1
        self.late += line.deadline_met is False
        self.output_tokens += line.output_tokens or 0
        if line.energy_joules is not None:
            self.energy_j += line.energy_joules
            self.measured += 1

    def __str__(self) -> str:
        counts = f"{self.answered} answered, {self.failed} failed, {self.rejected} rejected, {self.late} late"
        energy = f"{self.energy_j:.0f} J" if self.measured == self.finished else f"{self.energy_j:.0f} J known"
        return f"{counts}, {self.output_tokens} tokens, {energy if self.measured else 'energy unknown'}"
