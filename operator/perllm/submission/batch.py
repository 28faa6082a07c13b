"""A batch: one served task per prompt. Names follow from contents, so a repeated command finds its tasks again."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import orjson
from pydantic import ValidationError

from perllm.api import names
from perllm.api.task import TaskSpec
from perllm.cluster.client import Object
from perllm.kueue.workload import QUEUE_LABEL
from perllm.runner.prompts import MAX_PROMPTS, PlacedPrompt, PromptError, first_error

MAX_NAME_LENGTH = 40
"""Characters of a batch's name; names of tasks add a number and a hash, and should be readable in a terminal."""

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_HASH_LENGTH = 8


class BatchError(Exception):
    """What all prompts have in common is invalid; the message says what."""


@dataclass(frozen=True, slots=True)
class BatchTask:
    """The task of one prompt.

    Attributes:
        index: position of the prompt in the input, from 0.
        id: id of the prompt, if it has one.
        name: name of the task.
        spec: what is asked, and by when.
    """

    index: int
    id: str | None
    name: str
    spec: TaskSpec


@dataclass(frozen=True, slots=True)
class Batch:
    """Tasks that are submitted together.

    Attributes:
        namespace: namespace of the tasks.
        name: value of their label, and prefix of their names.
        tasks: in the order of the input.
        queue: LocalQueue of Kueue that they are in; empty for none.
    """

    namespace: str
    name: str
    tasks: tuple[BatchTask, ...]
    queue: str = ""

    @property
    def selector(self) -> str:
        """Label selector of the tasks."""
        return f"{names.BATCH_LABEL}={self.name}"

    def to_object(self, task: BatchTask) -> Object:
        """Return the task as it is created on the API server."""
        return {
            "apiVersion": names.API_VERSION,
            "kind": names.TASK_KIND,
            "metadata": {
                "namespace": self.namespace,
                "name": task.name,
                "labels": {names.BATCH_LABEL: self.name, **({QUEUE_LABEL: self.queue} if self.queue else {})},
            },
            "spec": task.spec.to_object(),
        }


def build_batch(
    prompts: Iterable[PlacedPrompt],
    common: Mapping[str, Any],
    *,
    namespace: str,
    name: str | None,
    stem: str,
    queue: str = "",
) -> Batch:
    """Return the batch of these prompts.

    Args:
        prompts: the prompts; their own parameters take precedence.
        common: fields of the spec of all tasks, without the prompt.
        namespace: namespace of the tasks.
        name: name of the batch; if None, it is made of `stem` and a hash of all contents.
        stem: what a name that is made begins with; any text.
        queue: LocalQueue of the tasks; empty for none.

    Raises:
        BatchError: the name or a common field is invalid.
        PromptError: there is no prompt, there are too many, or one exceeds the limits; the message names the line.
    """
    if name is not None and (len(name) > MAX_NAME_LENGTH or not _NAME.fullmatch(name)):
        raise BatchError(f"{name!r} is not a valid name: a-z, 0-9 and hyphens, at most {MAX_NAME_LENGTH} characters")
    _check_common(common)
    placed = tuple(islice(prompts, MAX_PROMPTS + 1))
    if not placed:
        raise PromptError("there is no prompt: give --file or --prompt")
    if len(placed) > MAX_PROMPTS:
        raise PromptError(f"there are more than {MAX_PROMPTS} prompts: split the file")
    specs = [_build_spec(one, common) for one in placed]
    digests = [_digest(orjson.dumps(spec.to_object(), option=orjson.OPT_SORT_KEYS)) for spec in specs]
    batch = name or f"{_clean_stem(stem)}-{_digest(''.join(digests).encode())}"
    contents = enumerate(zip(placed, specs, digests, strict=True))
    tasks = (BatchTask(at, one.prompt.id, f"{batch}-{at}-{digest}", spec) for at, (one, spec, digest) in contents)
    return Batch(namespace, batch, tuple(tasks), queue)


def _check_common(common: Mapping[str, Any]) -> None:
    """Raise if a field of all tasks is invalid, which is not the fault of a line."""
    try:
        TaskSpec.model_validate({"model": "any", **common, "prompt": "?"})
    except ValidationError as error:
        raise BatchError(first_error(error)) from error


def _build_spec(placed: PlacedPrompt, common: Mapping[str, Any]) -> TaskSpec:
    own = placed.prompt.model_dump(include={"messages", "model"}, exclude_none=True)
    try:
        return TaskSpec.model_validate({**common, **own, **placed.prompt.parameters})
    except ValidationError as error:
        raise PromptError(f"{placed.place} {first_error(error)}") from error


def _clean_stem(stem: str) -> str:
    longest = MAX_NAME_LENGTH - _HASH_LENGTH - 1
    return re.sub("[^a-z0-9]+", "-", stem.lower()).strip("-")[:longest].strip("-") or "prompts"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:_HASH_LENGTH]
