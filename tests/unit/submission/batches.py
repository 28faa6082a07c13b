"""Batches, and an API server on which a test plays the operator."""

from collections.abc import Callable, Sequence
from random import Random
from typing import Any, cast

from perllm.api import names
from perllm.cluster.client import Client
from perllm.runner.prompts import PlacedPrompt, Prompt
from perllm.submission.answers import AnswerLine
from perllm.submission.batch import Batch, build_batch
from perllm.submission.output import Output
from perllm.submission.submission import Submission
from unit.cluster.fake_api import FakeApiServer

COMMON = {"model": "m", "deadline": "60s"}
TASKS = names.tasks_path("team")


def placed(text: str, line: int = 1, **parameters: Any) -> PlacedPrompt:
    prompt = Prompt(messages=({"role": "user", "content": text},), **parameters)
    return PlacedPrompt(f"a.jsonl, line {line},", prompt)


def batch(*texts: str, **common: Any) -> Batch:
    return build_batch(map(placed, texts), {**COMMON, **common}, namespace="team", name="b", stem="")


class Lines:
    """An output in memory."""

    has_energies = True

    def __init__(self, lines: Sequence[AnswerLine] = ()) -> None:
        self.lines = lines
        self.written: list[AnswerLine] = []

    def write(self, line: AnswerLine) -> None:
        self.written.append(line)


def submission(
    api: FakeApiServer,
    batch: Batch,
    output: Output,
    *,
    window: int = 200,
    deletes: bool = False,
    report: Callable[[str], None] = lambda _: None,
) -> Submission:
    client = cast(Client, api)
    return Submission(client, batch, output, window=window, deletes=deletes, report=report, rng=Random(0))


def path(name: str) -> str:
    return names.task_path("team", name)


def created(api: FakeApiServer) -> list[str]:
    """Names of the tasks that somebody tried to create, in order."""
    return [body["metadata"]["name"] for _, body in api.calls_of("POST")]


def finish(api: FakeApiServer, name: str, phase: str = "Succeeded", **status: Any) -> None:
    """End a task as the operator does."""
    answer = {"result": {"text": f"answer of {name}"}} if phase == "Succeeded" else {}
    api.store(path(name), status={"phase": phase, **answer, **status})
