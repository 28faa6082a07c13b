"""A task in flight, and what it met on its node."""

from dataclasses import dataclass

from perllm.placement.forecast import ArmForecast, Inference


@dataclass(frozen=True, slots=True, kw_only=True)
class Flight:
    """A task in flight.

    Attributes:
        task_id: uid of the task.
        row: the node.
        placed_s: when it was placed there, by the ledger's clock.
        inference: what it asks of its model.
        forecast: what is expected of it there.
        length_kind: number of the shape that the length of its answer has.
        slots: slots of the node that it takes.
        resource: what they are units of; empty if its pod asks for no resource.
    """

    task_id: str
    row: int
    placed_s: float
    inference: Inference
    forecast: ArmForecast
    length_kind: int
    slots: float = 1.0
    resource: str = ""

    @property
    def due_s(self) -> float:
        """Its deadline."""
        return self.placed_s + self.inference.time_left_s

    @property
    def writes_from_s(self) -> float:
        """When its first token is expected."""
        return self.placed_s + self.forecast.times.fixed_s


@dataclass(frozen=True, slots=True)
class Residence:
    """What a task met on its node, per GPU.

    Attributes:
        occupancy: mean number of tasks of its model that wrote while it did, itself included.
        others_tokens: prompt tokens of other tasks of its model that were read before its own or while it wrote.
        pace: share of the time of its GPU that its model had while its prompt was read and it wrote.
    """

    occupancy: float
    others_tokens: float
    pace: float = 1.0
