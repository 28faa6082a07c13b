"""A task that needs a pod, and what the dispatch loop decides about it."""

from dataclasses import dataclass

from perllm.api.task import OnInfeasible
from perllm.placement.placer import Placement
from perllm.placement.request import PlacementRequest


@dataclass(frozen=True, slots=True)
class PendingTask:
    """A task that waits for its next pod.

    Attributes:
        key: namespace/name.
        generation: of its spec; a newer one replaces what is known of the task.
        attempt: number of the pod.
        request: what it asks of placement.
        priority: from -1 to 1.
        on_infeasible: whether it may be rejected.
        kept_chance: the chance to be in time that it keeps while it waits for cheaper energy; None if it starts as soon
            as it can.
    """

    key: str
    generation: int
    attempt: int
    request: PlacementRequest
    priority: float = 0.0
    on_infeasible: OnInfeasible = OnInfeasible.BEST_EFFORT
    kept_chance: float | None = None

    @property
    def uid(self) -> str:
        """Its identity."""
        return self.request.task_id

    @property
    def namespace(self) -> str:
        """Its namespace."""
        return self.request.namespace


@dataclass(frozen=True, slots=True)
class Start:
    """The task gets its pod now: slots are reserved for it on the node of `placement`."""

    task: PendingTask
    placement: Placement


@dataclass(frozen=True, slots=True)
class Wait:
    """The task keeps waiting: for cheaper energy until a Unix time, or for the reasons in `placement`."""

    task: PendingTask
    placement: Placement
    until_s: float | None = None


@dataclass(frozen=True, slots=True)
class Reject:
    """The task is not run: it cannot complete in time. It has left the loop."""

    task: PendingTask
    placement: Placement


@dataclass(frozen=True, slots=True)
class SetAside:
    """The decision about the task failed; it is retried after a pause."""

    task: PendingTask
    error: Exception


Action = Start | Wait | Reject | SetAside
