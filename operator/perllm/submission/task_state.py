"""What matters of a task on the API server while its answer is waited for."""

from dataclasses import dataclass

from pydantic import ValidationError

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
        is_final: whether it has finished.
        line: its line of the output, as soon as that can be written.
    """

    name: str
    uid: str
    has_our_spec: bool
    is_final: bool
    line: AnswerLine | None


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
    is_due = status.phase.is_final and (is_settled or not waits_for_energy)
    return TaskState(
        name=task.name,
        uid=item["metadata"]["uid"],
        has_our_spec=has_spec(item, task.spec),
        is_final=status.phase.is_final,
        line=build_line(task, status) if is_due else None,
    )


def has_spec(item: Object, spec: TaskSpec) -> bool:
    """Whether a task on the API server asks exactly this; defaults that the server has added do not matter."""
    try:
        return TaskSpec.model_validate(item["spec"]).to_object() == spec.to_object()
    except ValidationError:
        return False
