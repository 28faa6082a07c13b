"""Generates arrivals with published statistics: log-normal lengths, Poisson arrivals or bursts."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import sqrt
from types import MappingProxyType

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from perllm_lab.workload.arrivals import Arrival


@dataclass(frozen=True, slots=True)
class Bursts:
    """Poisson arrivals while the source is busy, and none while it is quiet.

    Both periods are exponential: an interrupted Poisson process, the simplest Markov-modulated one.

    Attributes:
        variation: Coefficient of variation of the gaps between arrivals, above 1.
        busy_share: Share of the time that the source is busy.
    """

    variation: float
    busy_share: float

    def draw_gaps_s(self, count: int, rate_per_s: float, rng: Generator) -> NDArray[np.float64]:
        """Draws the gaps, which are a mixture of two exponentials (Kuczura, Bell System Technical Journal 1973)."""
        rate, busy = rate_per_s / self.busy_share, self.busy_share
        turns = 2.0 * rate_per_s * (1.0 - busy) / (busy * (self.variation**2 - 1.0))
        total = rate + turns
        root = sqrt(total**2 - 4.0 * rate * turns * busy)
        fast, slow = (total + root) / 2.0, (total - root) / 2.0
        is_fast = rng.random(count) < (rate - slow) / (fast - slow)
        return np.where(is_fast, 1.0 / fast, 1.0 / slow) * rng.standard_exponential(count)


@dataclass(frozen=True, slots=True)
class TraceStatistics:
    """Poisson arrivals, unless in bursts, and log-normal lengths.

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
    bursts: Bursts | None = None


CONVERSATION = TraceStatistics()

CODE = TraceStatistics(
    rate_per_s=2.57,
    prompt_mu=7.00,
    prompt_sigma=1.36,
    prompt_max=7436,
    output_mu=2.79,
    output_sigma=0.85,
    output_max=841,
    log_correlation=-0.03,
    bursts=Bursts(variation=13.0, busy_share=0.4),
)
"""AzureLLMInferenceTrace_code.csv, same source: 8,819 requests, gaps of variation 13. Correlation, longest requests and
the share of busy time are those of its first 1,000."""

SHORT = TraceStatistics(prompt_mu=2.454, prompt_max=512, output_mu=3.691, output_max=512, log_correlation=0.0)
"""Prompts of 19 and answers of 58 tokens on average, as in the PerLLM paper (arXiv 2405.14636). It gives no spread;
that of the conversations is used."""

BURSTY = replace(CONVERSATION, bursts=Bursts(variation=13.0, busy_share=0.25))
"""Conversations that come in bursts of four times the mean rate; the variation is that of the Azure code trace."""

LAWS: Mapping[str, TraceStatistics] = MappingProxyType(
    {"conversation": CONVERSATION, "code": CODE, "short": SHORT, "bursty": BURSTY}
)
"""All synthetic traces by name."""


def generate_arrivals(count: int, rng: Generator, statistics: TraceStatistics | None = None) -> list[Arrival]:
    """Draws `count` requests, ordered by time, the first at 0 s."""
    law = statistics or CONVERSATION
    gaps_s = _draw_gaps_s(count, rng, law)
    at_s = np.cumsum(gaps_s) - gaps_s[:1]
    correlation = np.array([[1.0, law.log_correlation], [law.log_correlation, 1.0]])
    normal = rng.multivariate_normal(np.zeros(2), correlation, count)
    prompts = _lengths(law.prompt_mu + law.prompt_sigma * normal[:, 0], law.prompt_max)
    outputs = _lengths(law.output_mu + law.output_sigma * normal[:, 1], law.output_max)
    return [Arrival(*row) for row in zip(at_s.tolist(), prompts, outputs, strict=True)]


def _draw_gaps_s(count: int, rng: Generator, law: TraceStatistics) -> NDArray[np.float64]:
    if law.bursts is None:
        return rng.exponential(1.0 / law.rate_per_s, count)
    return law.bursts.draw_gaps_s(count, law.rate_per_s, rng)


def _lengths(logarithms: NDArray[np.float64], longest: int) -> list[int]:
    lengths: list[int] = np.clip(np.rint(np.exp(logarithms)), 1, longest).astype(int).tolist()
    return lengths
