"""What is asked of a model, and what is expected of a task on a node."""

from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from perllm.policy.problem import FloatArray

LEAST_S = 1e-6

LOGISTIC = 1.702
"""The logistic function of 1.702 x is within 0.01 of the normal distribution function of x."""

USUAL_TIME_SPREAD = 0.2
"""Of forecasts in records of earlier versions, which do not have it."""

MIN_TIME_SPREAD = 0.03

V = TypeVar("V", float, FloatArray)
"""The figures of one node, or of n nodes, shape (n,)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inference:
    """What a task asks of its model, and what is known of the answer before it is begun.

    Attributes:
        model: the model.
        prompt_tokens: tokens to read.
        hint_tokens: length of the answer that the task announced; None if it did not.
        output_tokens: expected length of the answer.
        length_centre: median of the logarithm of the length, as learned.
        length_spread: spread around it.
        input_bits: size of the input.
        time_left_s: time to the deadline when the task was placed; negative when that had passed.
        is_served: whether it runs as a request, so that no pod has to start.
        prompts: number of prompts; tokens and lengths are those of all together.
        service: whose answer it asks for, `<namespace>/<name>`, or the namespace alone; empty if that is not known.
    """

    model: str
    prompt_tokens: float
    hint_tokens: float | None
    output_tokens: float
    length_centre: float
    length_spread: float
    input_bits: float
    time_left_s: float
    is_served: bool = False
    prompts: int = 1
    service: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTimes(Generic[V]):
    """How long a task is expected to take.

    Attributes:
        latency_s: from now to completion, at the expected length of the answer.
        fixed_s: from now to the first token written, the wait for room and the transfer included.
        transfer_s: the transfer's part.
        reading_s: the part in which its own prompt is read.
        work_s: GPU seconds that it takes of a node whose batch is full.
        token_s: seconds per token, next to all that is there.
        solo_token_s: seconds per token if the task had the GPU to itself.
        contention_s: seconds per token that each further task adds.
        cold: share of the time to load the model that is still to come.
    """

    latency_s: V
    fixed_s: V
    transfer_s: V
    reading_s: V
    work_s: V
    token_s: V
    solo_token_s: V
    contention_s: V
    cold: V


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnergy(Generic[V]):
    """How much energy a task is expected to take.

    Attributes:
        energy_j: transmission and inference, at the expected length of the answer.
        transmission_energy_j: the transmission's part.
        fixed_j: what does not depend on the answer, transmission included.
        token_j: joules per token.
    """

    energy_j: V
    transmission_energy_j: V
    fixed_j: V
    token_j: V


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmForecast:
    """What is expected of a task on one node.

    Attributes:
        times: how long it takes.
        energy: how much energy it takes.
        latency_low_s: 5 % quantile of the latency, the length of the answer being unknown.
        latency_high_s: 95 % quantile of it.
        time_spread: standard deviation of ln(actual / expected seconds), the length of the answer being known.
        hit_chance: chance to be in time.
        harm: tasks running there that are expected to miss their deadline because of this one.
        demand_bps: uplink that the task needs to bring its input there in time.
        occupancy: tasks of its model on the node, this one included.
        gpus: GPUs of the node.
        pace: share of the time of its GPU that its model is expected to have; records of earlier versions say nothing.
    """

    times: RunTimes[float]
    energy: RunEnergy[float]
    latency_low_s: float
    latency_high_s: float
    hit_chance: float
    harm: float
    demand_bps: float
    occupancy: float
    gpus: float
    time_spread: float = USUAL_TIME_SPREAD
    pace: float = 1.0

    def latency_given_s(self, output_tokens: float) -> float:
        """Return the latency that would have been predicted, had the length been known; seconds."""
        return self.times.fixed_s + output_tokens * self.times.token_s

    def energy_given_j(self, output_tokens: float) -> float:
        """Return the energy that would have been predicted, had the length been known; joules."""
        return self.energy.fixed_j + output_tokens * self.energy.token_j


def find_hit_chance(times_s: FloatArray, time_left_s: float, time_spread: FloatArray) -> FloatArray:
    """Return the chance that expected seconds turn out to be at most those that are left, in the same array.

    Args:
        times_s: expected seconds, positive, of any shape.
        time_left_s: seconds that are left.
        time_spread: standard deviation of ln(actual / expected seconds), of a shape that is broadcast to theirs.
    """
    if time_left_s <= 0:
        return np.zeros_like(times_s)
    # In place: of a large fleet there are many, one for each node and length.
    chances = times_s
    chances /= time_left_s
    np.log(chances, out=chances)
    chances *= LOGISTIC / time_spread
    with np.errstate(over="ignore"):
        np.exp(chances, out=chances)
    chances += 1.0
    return np.reciprocal(chances, out=chances)
