"""What a task took where it ran, next to what was expected of it where the other scheduler would have put it.

In active mode the other scheduler is the plain kube-scheduler, in shadow mode PerLLM (rehearsal.py).
"""

from dataclasses import dataclass, replace
from math import inf, log

import numpy as np

from perllm.learning.features import MAX_READING, PROMPT_UNIT, energy_features
from perllm.learning.learner import MAX_ENERGY_RATIO
from perllm.learning.model_laws import ModelLaws, RunRates
from perllm.placement.flight import Flight, Residence
from perllm.placement.forecast import LEAST_S, ArmForecast
from perllm.placement.saved_deadlines import DeadlineComparison, compare_deadlines
from perllm.placement.saved_joules import EnergyComparison, compare_joules
from perllm.placement.savings import Excess, RunningExcess, SavedUnit


@dataclass(frozen=True, slots=True, kw_only=True)
class Prospect:
    """What is expected of a task on one node at one moment.

    Attributes:
        node: the node.
        gpu_type: of the node.
        at_s: Unix time of the moment.
        forecast: what is expected.
        wait_s: the part of the latency in which the task waits for room.
    """

    node: str
    gpu_type: str
    at_s: float
    forecast: ArmForecast
    wait_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """What is known of a run once it has ended.

    Attributes:
        prompt_tokens: tokens read.
        output_tokens: tokens written.
        residence: what it met on its node.
        met_s: in how many seconds it met that, if it would have been there for longer or less; None for the run itself.
        reading_share: in which share of the time its node reads prompts of others after that.
        is_served: whether it ran as a request.
    """

    prompt_tokens: float
    output_tokens: float
    residence: Residence
    met_s: float | None = None
    reading_share: float = 0.0
    is_served: bool = False


def revise(prospect: Prospect, laws: ModelLaws, row: int, *, run: Circumstances) -> Prospect:
    """Return what the laws expect once it is known what the task met on the node, and wrote.

    Args:
        prospect: what was expected before.
        laws: of the task's model.
        row: the node.
        run: what is known by now.
    """
    times, energy, occupancy = prospect.forecast.times, prospect.forecast.energy, max(run.residence.occupancy, 1.0)
    rates = laws.find_rates(np.array([row]), is_served=run.is_served)
    run_s = _find_run_s(rates, prospect, run)
    run_j = float(laws.energy.coefficients[row] @ energy_features(run.prompt_tokens, run.output_tokens, occupancy))
    forecast = replace(
        prospect.forecast,
        times=replace(times, fixed_s=prospect.wait_s + times.transfer_s + run_s, token_s=0.0),
        energy=replace(energy, fixed_j=energy.transmission_energy_j + run_j, token_j=0.0),
    )
    return replace(prospect, forecast=forecast)


def _find_run_s(rates: RunRates, prospect: Prospect, run: Circumstances) -> float:
    """Return the seconds that a run takes on the node of `rates`.

    Prompts that waited when it came delay it once. If it is there for longer than it was observed, more of those that
    come later are read meanwhile, as many per second.
    """
    times, met = prospect.forecast.times, run.residence
    first_s = float(rates.find_first_s(run.prompt_tokens / met.pace, times.cold)[0])
    token_s = float(rates.find_token_s(max(met.occupancy, 1.0) - 1.0)[0]) / met.pace
    others_s = float(rates.read_s[0]) * met.others_tokens / PROMPT_UNIT / met.pace
    if run.met_s is None:
        return first_s + others_s + run.output_tokens * token_s
    foreseen_s = times.fixed_s - prospect.wait_s - times.transfer_s
    waited_s = min(max(foreseen_s - first_s, 0.0), others_s)
    later_s = others_s - waited_s
    own_s = first_s + waited_s + run.output_tokens * token_s
    met_share = min(later_s / max(run.met_s, LEAST_S), MAX_READING)
    if own_s + later_s <= run.met_s:
        return own_s / (1.0 - met_share)
    # What it met may be little, and what its node reads by then is not what it reads later: neither is enough alone.
    share = (met_share + run.reading_share) / 2.0
    return (own_s + later_s - share * run.met_s) / (1.0 - share)


def find_written(flight: Flight, laws: ModelLaws, *, residence: Residence, until_s: float) -> float:
    """Return how many tokens a task has written by a moment, as far as the laws say from what it has met by now."""
    inference, times = flight.inference, flight.forecast.times
    rates = laws.find_rates(np.array([flight.row]), is_served=inference.is_served)
    read_tokens = inference.prompt_tokens + residence.others_tokens
    first_s = times.transfer_s + float(rates.find_first_s(read_tokens / residence.pace, times.cold)[0])
    token_s = float(rates.find_token_s(max(residence.occupancy, 1.0) - 1.0)[0]) / residence.pace
    return max(until_s - flight.placed_s - first_s, 0.0) / max(token_s, LEAST_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What became of a task under the real choice.

    Attributes:
        real: what was expected of it where it ran; None if it was rejected.
        other: what was expected of it under the other choice.
        output_tokens: length of its answer, as observed; as expected where it is not known.
        due_s: Unix time of its deadline.
        is_met: whether it was in time.
        took_s: seconds from when it was sent to its node to its end; None if it did not run to its end.
        energy_j: what it took, transmission included; None where that could not be measured.
    """

    real: Prospect | None
    other: Prospect
    output_tokens: float
    due_s: float
    is_met: bool
    took_s: float | None
    energy_j: float | None


class Savings:
    """What PerLLM saves, or in shadow mode would save, against the other scheduler.

    Args:
        is_shadow: whether the real choices are the other scheduler's, and the rehearsed ones PerLLM's.
    """

    def __init__(self, *, is_shadow: bool) -> None:
        self._is_shadow = is_shadow
        self._joules = RunningExcess(compare_joules)
        self._deadlines = RunningExcess(compare_deadlines)

    def note(self, *endings: Ending) -> None:
        """Count tasks; their energy only where that is known."""
        for ending in endings:
            self._deadlines.add(_compare_deadline(ending))
            if ending.energy_j is not None:
                self._joules.add(_compare_energy(ending, ending.energy_j))

    def of(self, unit: SavedUnit) -> Excess:
        """Return the joules that PerLLM takes less, or the deadlines that it meets more."""
        more = (self._joules if unit is SavedUnit.JOULES else self._deadlines).excess
        return more if (unit is SavedUnit.JOULES) is not self._is_shadow else -more


def _compare_energy(ending: Ending, energy_j: float) -> EnergyComparison:
    """Return what a task took; sums never forget, so of a meter that once says 1e9 J only a possible part counts."""
    real, other, tokens = ending.real, ending.other, ending.output_tokens
    expected_j = real.forecast.energy_given_j(tokens) if real else 0.0
    return EnergyComparison(
        observed_j=min(energy_j, MAX_ENERGY_RATIO * expected_j) if real else energy_j,
        expected_j=expected_j,
        other_expected_j=other.forecast.energy_given_j(tokens),
        gpu_type=real.gpu_type if real else "",
        other_gpu_type=other.gpu_type,
        is_same=real is not None and real.node == other.node,
    )


def _compare_deadline(ending: Ending) -> DeadlineComparison:
    """Return how far a task was from what the laws give it, and how far from its deadline it would be elsewhere."""
    real, other, tokens = ending.real, ending.other, ending.output_tokens
    error = None
    if real is not None and ending.took_s is not None:
        error = _find_log_ratio(ending.took_s, real.forecast.latency_given_s(tokens))
    return DeadlineComparison(
        is_met=ending.is_met,
        error=error,
        other_reach=_find_log_ratio(ending.due_s - other.at_s, other.forecast.latency_given_s(tokens)),
        gpu_type=real.gpu_type if real else "",
        other_gpu_type=other.gpu_type,
        is_same=real is not None and real.node == other.node,
    )


def _find_log_ratio(span_s: float, expected_s: float) -> float:
    return log(span_s / max(expected_s, LEAST_S)) if span_s > 0.0 else -inf
