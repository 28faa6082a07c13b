"""The interface of a scheduler in a simulation. It is shown what a real scheduler would see, and nothing else.

Times are simulated seconds. A task is identified by its number, its position in the list of requests.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from perllm_lab.hardware.scenario import NodeSpec
from perllm_lab.workload.requests import Request


class StationOrder(Enum):
    """In which order tasks leave the queue of a node that had no room for them."""

    FIRST_COME = "first come"
    DEADLINE = "earliest deadline"


@dataclass(frozen=True, slots=True)
class QueueRules:
    """The rules around a placement that are not the policy's own.

    Attributes:
        order: order of the queue of a node.
        drops: whether a waiting task whose deadline has passed is dropped.
        ends_at_deadline: whether a running task is ended at its deadline.
    """

    order: StationOrder = StationOrder.FIRST_COME
    drops: bool = False
    ends_at_deadline: bool = False


@dataclass(frozen=True, slots=True)
class Forecast:
    """What was expected of a task when it was placed; nan if a scheduler predicts nothing.

    Attributes:
        latency_s: from the decision to completion, at the expected length.
        latency_low_s: 5 % quantile of the latency, before the length is known.
        latency_high_s: 95 % quantile of the latency.
        energy_j: transmission and inference.
        given_latency_s: latency that would have been predicted, had the true length been known.
        given_low_s: 5 % quantile of that.
        given_high_s: 95 % quantile of that.
        given_energy_j: energy that would have been predicted, had the true length been known.
        hit_chance: chance to be in time.
    """

    latency_s: float = float("nan")
    latency_low_s: float = float("nan")
    latency_high_s: float = float("nan")
    energy_j: float = float("nan")
    given_latency_s: float = float("nan")
    given_low_s: float = float("nan")
    given_high_s: float = float("nan")
    given_energy_j: float = float("nan")
    hit_chance: float = float("nan")


@dataclass(frozen=True, slots=True)
class SendTask:
    """Send a task to a node; it waits there if the node has no room."""

    number: int
    node: str
    forecast: Forecast = Forecast()
    explored: bool = False


@dataclass(frozen=True, slots=True)
class RejectTask:
    """End a task without running it."""

    number: int


@dataclass(frozen=True, slots=True)
class NodeReading:
    """What the last scrape showed about a node.

    Attributes:
        bandwidth_bps: what its link can carry.
        received_bps: what it has carried since the previous scrape.
        power_w: present power.
        speed: of its hardware, as a share of nominal; no meter shows it, it is for the clairvoyant only.
    """

    bandwidth_bps: float
    received_bps: float
    power_w: float
    speed: float = 1.0


@dataclass(frozen=True, slots=True)
class Completion:
    """What is observed of a task that ran to completion, as its container reports it.

    Attributes:
        number: the task.
        node: where it ran.
        bound_s: when the node had room and took it.
        transfer_s: seconds its input took.
        finished_s: when it was complete.
        output_tokens: tokens written.
        energy_j: its share of the node's energy as telemetry attributes it, transmission not included.
    """

    number: int
    node: str
    bound_s: float
    transfer_s: float
    finished_s: float
    output_tokens: int
    energy_j: float


class Strategy(Protocol):
    """Decides where and when tasks run."""

    name: str
    queue_rules: QueueRules

    def join(self, node: NodeSpec, now_s: float) -> None:
        """Handle a node that is there at the start, joins, or returns."""

    def leave(self, node: str, now_s: float) -> None:
        """Handle a node that is gone. Its tasks were released before, and are submitted again afterwards."""

    def observe(self, readings: Mapping[str, NodeReading], now_s: float) -> None:
        """Handle a scrape of all nodes."""

    def submit(self, number: int, request: Request, now_s: float) -> None:
        """Handle a task that has arrived. `request.output_tokens` is the truth, for the clairvoyant only."""

    def decide(self, now_s: float) -> Sequence[SendTask | RejectTask]:
        """Return what is to be done now; called after everything that happens at one moment."""

    def next_decision_s(self) -> float:
        """Return when `decide` must be called next even if nothing happens; inf for never."""

    def bind(self, number: int, now_s: float) -> None:
        """Note that the node had room and took the task; that is at once for tasks that did not wait."""

    def release(self, number: int, now_s: float, output_tokens: int | None = None) -> None:
        """Note that the task has left: it is complete, ended, dropped from a queue, or lost with its node.

        Args:
            number: of the task.
            now_s: now.
            output_tokens: length of its answer if it is complete.
        """

    def learn(self, completion: Completion, now_s: float) -> None:
        """Learn from a completed task and its energy; called at the first scrape after it."""
