"""Generates requests with the published statistics of the Azure LLM inference trace of 2023 (conversation)."""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from perllm_lab.workload.arrivals import Arrival


@dataclass(frozen=True, slots=True)
class TraceStatistics:
    """Poisson arrivals and log-normal lengths.

    The defaults were fitted to AzureLLMInferenceTrace_conv.csv (Azure/AzurePublicDataset, CC-BY-4.0): 19,366 requests
    in 3,502 s. `log_correlation` is that of the logarithms of prompt and output length.
    """

    rate_per_s: float = 5.5
    prompt_mu: float = 6.63
    prompt_sigma: float = 0.99
    prompt_max: int = 14050
    output_mu: float = 5.02
    output_sigma: float = 0.86
    output_max: int = 1000
    log_correlation: float = 0.09


def generate_arrivals(count: int, rng: Generator, statistics: TraceStatistics | None = None) -> list[Arrival]:
    """Draws `count` requests, ordered by time, the first at 0 s."""
    law = statistics or TraceStatistics()
    gaps_s = rng.exponential(1.0 / law.rate_per_s, count)
    at_s = np.cumsum(gaps_s) - gaps_s[:1]
    correlation = np.array([[1.0, law.log_correlation], [law.log_correlation, 1.0]])
    normal = rng.multivariate_normal(np.zeros(2), correlation, count)
    prompts = _lengths(law.prompt_mu + law.prompt_sigma * normal[:, 0], law.prompt_max)
    outputs = _lengths(law.output_mu + law.output_sigma * normal[:, 1], law.output_max)
    return [Arrival(*row) for row in zip(at_s.tolist(), prompts, outputs, strict=True)]


def _lengths(logarithms: np.ndarray, longest: int) -> list[int]:
    lengths: list[int] = np.clip(np.rint(np.exp(logarithms)), 1, longest).astype(int).tolist()
    return lengths
