"""A task on the node of the other choice."""

from dataclasses import dataclass

from perllm.learning.lengths import find_quantile, find_share
from perllm.placement.counterfactual import Prospect
from perllm.placement.flight import Flight, Residence
from perllm.placement.request import PlacementRequest
from perllm.policy.problem import FloatArray


@dataclass(frozen=True, slots=True)
class MetThere:
    """What a task met on the node of the other choice, in how many seconds, and how busy reading the node is then."""

    residence: Residence
    in_s: float
    reading_share: float


@dataclass(frozen=True, slots=True)
class RehearsedRun:
    """A task on the node of the other choice; its answer is as long as drawn, or as observed.

    Attributes:
        request: what it asks of placement.
        prospect: what was expected of it.
        flight: what is in flight.
        quantile: of the length of its answer, drawn.
        output_tokens: that length, as far as known.
        is_observed: whether it is the length of the real answer.
    """

    request: PlacementRequest
    prospect: Prospect
    flight: Flight
    quantile: float
    output_tokens: float
    is_observed: bool = False

    def find_met_s(self, now_s: float) -> float:
        """Return for how long it has been on the node, without its wait for room and the transfer of its input."""
        return now_s - self.flight.placed_s - self.prospect.wait_s - self.prospect.forecast.times.transfer_s


def find_length(flight: Flight, quantile: float, shape: FloatArray, *, more_than: float = 0.0) -> float:
    """Return a quantile of the lengths that an answer may have, of those that are more than `more_than`.

    The points that stand for their distribution would be too short in the mean: the longest leaves out its tail.

    Args:
        flight: the task.
        quantile: which one.
        shape: of the length of its answer, as the learner counts it.
        more_than: tokens.
    """
    centre, spread = flight.inference.length_centre, flight.inference.length_spread
    least = find_share(more_than, centre, spread, shape) if more_than else 0.0
    return max(find_quantile(least + quantile * (1.0 - least), centre, spread, shape), more_than)
