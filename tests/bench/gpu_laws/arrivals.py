"""What is sent to the engine, and how much of it a GPU can do."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from perllm_lab.workload.arrivals import Arrival
from perllm_lab.workload.synthetic import CONVERSATION, generate_arrivals

LENGTHS = replace(CONVERSATION, prompt_max=3072, output_max=1000)
"""Conversations of which the longest are cut to fit into a slot of 4,096 tokens."""


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """What is served.

    Attributes:
        folder: For the records.
        loads: As shares of the capacity.
        for_s: How long tasks arrive at each of them.
        seed: Of arrivals and lengths.
    """

    folder: Path
    loads: Sequence[float]
    for_s: float
    seed: int = 0


def draw_arrivals(rate_per_s: float, for_s: float, seed: int) -> list[Arrival]:
    """Return Poisson arrivals of a time with the lengths of conversations."""
    law = replace(LENGTHS, rate_per_s=rate_per_s)
    drawn = generate_arrivals(int(2 * rate_per_s * for_s) + 50, np.random.default_rng(seed), law)
    return [one for one in drawn if one.at_s < for_s]


def find_capacity_per_s(read_s: float, iteration_s: float, batch: int, output_tokens: float) -> float:
    """Return how many tasks a second keep the GPU busy, if so many write together."""
    return 1.0 / (read_s + iteration_s * output_tokens / batch)
