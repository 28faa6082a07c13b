"""What the operator wants this node to do: the served tasks that were placed on it."""

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol

from perllm.api import names
from perllm.api.prompt import ChatMessage, Generation
from perllm.api.task import OnDeadlineMissed, TaskSpec
from perllm.api.task_status import RunsAs, TaskPhase
from perllm.cluster.client import Client, Object
from perllm.cluster.informer import Informer, object_key
from perllm.cluster.outages import Outages
from perllm.cluster.times import parse_time_s
from perllm.completions.endpoint import ChatRequest
from perllm.guard import Guard

AssignmentId = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Assignment:
    """One attempt at a served task, to be made on this node.

    Attributes:
        key: namespace/name of the task.
        uid: identity of the task.
        attempt: number of the attempt.
        model: name of the model.
        conversations: the messages that are sent, for each prompt.
        generation: how answers are generated.
        prompt_retries: how many times a failed prompt of a list is repeated; None if the task states no list.
        due_unix_s: when the deadline passes, by the clock of the cluster.
        ends_at_deadline: whether the attempt ends when the deadline passes.
    """

    key: str
    uid: str
    attempt: int
    model: str
    conversations: tuple[tuple[ChatMessage, ...], ...]
    generation: Generation
    prompt_retries: int | None
    due_unix_s: float
    ends_at_deadline: bool

    @property
    def id(self) -> AssignmentId:
        """What distinguishes it from other tasks, and from other attempts at the same task."""
        return self.uid, self.attempt

    def to_requests(self) -> list[ChatRequest]:
        """Return the requests to the model server, one for each prompt."""
        parameters = self.generation.to_body()
        conversations = ([message.to_object() for message in one] for one in self.conversations)
        return [ChatRequest(self.model, messages, parameters) for messages in conversations]


def read_assignment(item: Object) -> Assignment | None:
    """Return the assignment of a task that is placed on this node; None if there is none, or no longer.

    Raises:
        ValueError: the task cannot be understood.
    """
    metadata, status = item["metadata"], item.get("status") or {}
    attempt = status.get("attempts") or 0
    if status.get("runsAs") != RunsAs.REQUEST or metadata.get("deletionTimestamp") or not attempt:
        return None
    if TaskPhase(status.get("phase", TaskPhase.PENDING)).is_final or _has_run(status, attempt):
        return None
    spec = TaskSpec.model_validate(item["spec"])
    received_s = parse_time_s(status.get("receivedTime")) or parse_time_s(metadata.get("creationTimestamp"))
    if received_s is None:
        raise ValueError(f"the task was created at no valid time: {metadata.get('creationTimestamp')}")
    return Assignment(
        key=object_key(item),
        uid=metadata["uid"],
        attempt=attempt,
        model=spec.model,
        conversations=spec.conversations,
        generation=spec.to_generation(),
        prompt_retries=None if spec.prompts is None else spec.retries,
        due_unix_s=received_s + spec.deadline_s,
        ends_at_deadline=spec.on_deadline_missed is OnDeadlineMissed.TERMINATE,
    )


def _has_run(status: Mapping[str, Any], attempt: int) -> bool:
    return ((status.get("run") or {}).get("attempt") or 0) >= attempt


class AssignmentListener(Protocol):
    """Carries out assignments. Its methods must not block."""

    def assign(self, assignment: Assignment) -> None:
        """Carry out an assignment."""

    def change(self, assignment: Assignment) -> None:
        """Note what an assignment says by now, such as whether it ends at the deadline."""

    def withdraw(self, assignment: Assignment) -> None:
        """Stop an assignment: it was carried out, or is no longer wanted."""


class Assignments(Protocol):
    """Delivers the assignments of this node, by any transport."""

    @property
    def is_synced(self) -> bool:
        """Whether all assignments of the moment were delivered."""

    async def run(self) -> None:
        """Deliver assignments until cancelled."""


class WatchedAssignments:
    """Delivers assignments by watching the tasks whose status names this node; the API server selects them.

    Args:
        client: the API server.
        node: name of this node.
        namespace: namespace of the tasks; None for all.
        listener: carries out the assignments.
        guard: records unexpected failures, such as tasks that cannot be understood.
        outages: records watches that end in an error.
        rng: jitter of pauses.
    """

    def __init__(
        self,
        client: Client,
        node: str,
        namespace: str | None,
        listener: AssignmentListener,
        *,
        guard: Guard,
        outages: Outages,
        rng: Random,
    ) -> None:
        self._listener = listener
        self._informer = Informer(
            client,
            names.tasks_path(namespace),
            read_assignment,
            self._note_change,
            kind="task",
            query={"fieldSelector": f"status.nodeName={node}"},
            guard=guard,
            outages=outages,
            rng=rng,
        )

    @property
    def is_synced(self) -> bool:
        """Whether all assignments of the moment were delivered."""
        return self._informer.synced.is_set()

    async def run(self) -> None:
        """Deliver assignments until cancelled."""
        await self._informer.run()

    def _note_change(self, old: Assignment | None, new: Assignment | None) -> None:
        if old is not None and new is not None and old.id == new.id:
            self._listener.change(new)
            return
        if old is not None:
            self._listener.withdraw(old)
        if new is not None:
            self._listener.assign(new)
