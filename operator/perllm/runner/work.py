"""Answers the prompts of a task, one after the other or several at a time, until done or stopped."""

import asyncio
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from perllm.completions.answer import Answer
from perllm.runner.errors import EndpointError, ExitCode
from perllm.runner.patience import PatientEndpoint
from perllm.runner.prompts import Prompt

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)

MAX_FAILURES = 2
"""After so many failures of the server in a row no more prompts are asked; a single one may be due to its prompt."""


@dataclass(slots=True)
class Work:
    """The prompts, and the progress that has been made.

    Attributes:
        prompts: the prompts to answer.
        answers: the answer to each of them, complete or not.
        kept: the prompts, by index, that are not asked because an earlier run has answered them.
        code: exit code.
        problem: what went wrong, in words; empty if nothing did.
        failures: how often the server has failed since it last answered a prompt, or rejected one.
    """

    prompts: Sequence[Prompt]
    answers: list[Answer] = field(default_factory=list)
    kept: frozenset[int] = frozenset()
    code: int = ExitCode.DONE
    problem: str = ""
    failures: int = 0

    def __post_init__(self) -> None:
        self.answers = [Answer(prompt_id=prompt.id) for prompt in self.prompts]

    def keep(self, answers: Mapping[int, Answer]) -> None:
        """Keep the answers of an earlier run, by the index of their prompts."""
        self.kept = frozenset(answers)
        for index, answer in answers.items():
            self.answers[index] = replace(answer, prompt_id=self.prompts[index].id)

    @property
    def answered(self) -> int:
        """Number of complete answers."""
        return sum(1 for answer in self.answers if not answer.problem)

    def end(self, code: int, problem: str) -> None:
        """Record how it ended: the first problem counts, but others take precedence over a rejected prompt."""
        if self.code == ExitCode.DONE or (self.code == ExitCode.REJECTED and code != ExitCode.REJECTED):
            self.code, self.problem = code, problem


@dataclass(frozen=True, slots=True)
class Listener:
    """Callbacks for every piece of text, and for every answer that has ended."""

    on_text: Callable[[str], None]
    on_answer: Callable[[int, Answer], None]


async def carry_out(
    work: Work, endpoint: PatientEndpoint, listener: Listener, *, concurrency: int, time_left_s: float | None
) -> None:
    """Answer the prompts until all are done, time is up, a signal arrives or the server is gone.

    A prompt that is rejected, or on which the server fails, does not keep the others from being answered; a server that
    is gone, or fails repeatedly, does.
    """
    if time_left_s is not None and time_left_s <= 0:
        work.end(ExitCode.OUT_OF_TIME, "the deadline had passed before the first prompt was sent")
        return
    signals: list[int] = []
    asking = asyncio.create_task(_ask_all(work, endpoint, listener, concurrency))
    loop = asyncio.get_running_loop()

    def stop(number: int) -> None:
        signals.append(number)
        asking.cancel()

    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, stop, number)
    try:
        async with asyncio.timeout(time_left_s):
            await asking
    except TimeoutError:
        work.end(ExitCode.OUT_OF_TIME, f"the deadline passed: {_describe_progress(work)}")
    except asyncio.CancelledError:
        if not signals:
            raise
        work.end(128 + signals[0], f"stopped by {signal.Signals(signals[0]).name}: {_describe_progress(work)}")
    finally:
        # Partial results must still be written, so further signals are ignored.
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, lambda: None)


async def _ask_all(work: Work, endpoint: PatientEndpoint, listener: Listener, concurrency: int) -> None:
    remaining = iter([index for index in range(len(work.prompts)) if index not in work.kept])
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(concurrency, len(work.prompts))):
                group.create_task(_ask_some(remaining, work, endpoint, listener))
    except* EndpointError as errors:
        first = errors.exceptions[0]
        if isinstance(first, EndpointError):
            work.end(first.code, str(first))


async def _ask_some(remaining: Iterator[int], work: Work, endpoint: PatientEndpoint, listener: Listener) -> None:
    for index in remaining:
        answer = work.answers[index]
        try:
            await endpoint.ask(work.prompts[index], answer, listener.on_text)
        except EndpointError as error:
            answer.problem = str(error)
            work.end(error.code, str(error))
            work.failures = 0 if error.code is ExitCode.REJECTED else work.failures + 1
            if not error.may_answer_others or work.failures >= MAX_FAILURES:
                raise
        else:
            work.failures = 0
        listener.on_answer(index, answer)


def _describe_progress(work: Work) -> str:
    return f"{work.answered} of {len(work.prompts)} prompts were answered"
