"""What matters of a task on the API server while its answer is waited for."""

from dataclasses import dataclass

from perllm.api.rules import IMMUTABLE_FIELDS
from perllm.api.task import TaskSpec
from perllm.api.task_status import TaskStatus
from perllm.cluster.client import Object
from perllm.submission.answers import AnswerLine, build_line
from perllm.submission.batch import BatchTask


@dataclass(frozen=True, slots=True)
class TaskState:
    """The state of a task of the batch.

    Attributes:
        name: name of the task.
        uid: its identity.
        has_our_spec: whether it asks what the batch asks.
        line: its line of the output; None until it has finished.
        answer_name: name of the object with the whole text of the line; None if the line has it.
        is_due: whether the line has all that it waits for.
    """

    name: str
    uid: str
    has_our_spec: bool
    line: AnswerLine | None
    answer_name: str | None
    is_due: bool


def read_state(item: Object, task: BatchTask, *, waits_for_energy: bool) -> TaskState:
    """Return the state of a task.

    Args:
        item: the task on the API server.
        task: the task of this name in the batch.
        waits_for_energy: whether its line has to wait until the energy is known, or known to be missing.

    Raises:
        ValueError: its status cannot be understood.
    """
    status = TaskStatus.model_validate(item.get("status") or {})
    is_settled = status.observed is None or status.observed.energy_quality is not None
    is_final = status.phase.is_final
    return TaskState(
        name=task.name,
        uid=item["metadata"]["uid"],
        has_our_spec=_has_spec(item, task.spec),
        line=build_line(task, status) if is_final else None,
        answer_name=status.result.answer_name if status.result else None,
        is_due=is_final and (is_settled or not waits_for_energy),
    )


def _has_spec(item: Object, spec: TaskSpec) -> bool:
    """Whether a task on the API server asks this.

    What may be changed while it exists, such as its priority, does not matter, nor what the server has added by itself.
    """
    asked = spec.to_object()
    return all(item["spec"].get(field) == asked[field] for field in IMMUTABLE_FIELDS if field in asked)
