"""Tasks and nodes as far as an overview needs them; what cannot be parsed counts as absent."""

from collections.abc import Collection
from dataclasses import dataclass

from pydantic import ValidationError

from perllm.api.node_profile import NodeProfileStatus
from perllm.api.quantities import parse_duration_s
from perllm.api.task_status import Condition, ConditionType, TaskPhase, TaskStatus
from perllm.cluster.client import Object
from perllm.cluster.shapes import as_object, as_text
from perllm.cluster.times import parse_time_s
from perllm.text import clean_line

MAX_NAME = 253
FINAL_PHASES = frozenset(phase.value for phase in TaskPhase if phase.is_final)
ENDED_FIELDS = ("phase", "receivedTime", "nodeName", "completionTime", "observed", "deadlineMet")
OPEN_FIELDS = ("phase", "receivedTime", "nodeName", "message", "conditions", "decision")
OBSERVED_FIELDS = ("latency", "energyJoules")
"""What an overview shows of the status of a task that has ended, and of one that has not."""


@dataclass(frozen=True, slots=True)
class SeenTask:
    """A task on the API server.

    Attributes:
        key: namespace/name.
        model: model that it asks for.
        is_served: whether it has no template, so that a model server may answer it.
        created_s: Unix time of its creation.
        deadline_s: seconds from its creation; None if unknown.
        status: its status; that of a task that was not picked up yet if it has none.
    """

    key: str
    model: str
    is_served: bool
    created_s: float
    deadline_s: float | None
    status: TaskStatus

    @property
    def latency_s(self) -> float | None:
        """Seconds from its creation to its end; None while it has not ended."""
        if self.status.observed is not None and self.status.observed.latency is not None:
            return self.status.observed.latency
        ended = self.status.completion_time
        return max(ended.timestamp() - self.created_s, 0.0) if ended is not None else None

    @property
    def energy_j(self) -> float | None:
        """Joules that it used; None if unknown."""
        return self.status.observed.energy_joules if self.status.observed is not None else None

    def find_condition(self, kind: ConditionType) -> Condition | None:
        """Return its condition of a kind."""
        return next((one for one in self.status.conditions if one.type == kind), None)


@dataclass(frozen=True, slots=True)
class SeenNode:
    """A node of the fleet, as its profile shows it.

    Attributes:
        name: name of the node.
        status: of the profile.
    """

    name: str
    status: NodeProfileStatus


def read_task(item: Object) -> SeenTask:
    """Return a task.

    Raises:
        ValueError: its status cannot be understood.
    """
    metadata, spec = item["metadata"], as_object(item.get("spec"))
    status = TaskStatus.model_validate(item.get("status") or {})
    received = status.received_time
    return SeenTask(
        key=f"{metadata['namespace']}/{metadata['name']}",
        model=clean_line(as_text(spec.get("model")), MAX_NAME),
        is_served="template" not in spec,
        created_s=received.timestamp() if received else parse_time_s(metadata.get("creationTimestamp")) or 0.0,
        deadline_s=_read_duration_s(spec.get("deadline")),
        status=status,
    )


def read_listed_task(item: Object) -> SeenTask:
    """Return a task with as much of its status as an overview shows, since a hundred thousand may be listed.

    Raises:
        ValueError: its status cannot be understood.
    """
    status = as_object(item.get("status"))
    is_over = status.get("phase") in FINAL_PHASES
    kept = _keep(status, ENDED_FIELDS if is_over else OPEN_FIELDS)
    if "observed" in kept:
        kept["observed"] = _keep(as_object(kept["observed"]), OBSERVED_FIELDS)
    if "decision" in kept:
        kept["decision"] = {**as_object(kept["decision"]), "alternatives": [], "rejected": {}, "counterfactual": None}
    return read_task({**item, "status": kept})


def _keep(values: Object, fields: Collection[str]) -> Object:
    return {field: values[field] for field in fields if field in values}


def read_node(item: Object) -> SeenNode | None:
    """Return a node; None if its profile cannot be understood, such as that of another version."""
    try:
        status = NodeProfileStatus.model_validate(item.get("status") or {})
    except ValidationError:
        return None
    return SeenNode(str(item["metadata"]["name"]), status)


def _read_duration_s(text: object) -> float | None:
    try:
        return parse_duration_s(as_text(text))
    except ValueError:
        return None
