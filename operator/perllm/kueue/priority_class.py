"""The priorities that Kueue has names for."""

from dataclasses import dataclass

from perllm.cluster.client import Object


@dataclass(frozen=True, slots=True)
class PriorityClass:
    """A WorkloadPriorityClass: a name for a priority."""

    name: str
    value: int


def read_priority_class(item: Object) -> PriorityClass:
    """Return a WorkloadPriorityClass."""
    return PriorityClass(item["metadata"]["name"], int(item["value"]))
