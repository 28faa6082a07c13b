"""Requests to replay: those of the trace that the environment names, or synthetic ones."""

import os
from collections.abc import Sequence

import numpy as np

from perllm_lab.hardware.scenario import Scenario
from perllm_lab.workload.requests import Request, build_requests
from perllm_lab.workload.sources import SYNTHETIC, load_arrivals
from perllm_lab.workload.synthetic import TraceStatistics, generate_arrivals

TRACE_VARIABLE = "PERLLM_TRACE"


def trace_requests(scenario: Scenario, *, synthetic: int, limit: int | None = None) -> list[Request]:
    """Return the first `limit` requests of the named trace, or `synthetic` ones with published statistics."""
    trace = os.environ.get(TRACE_VARIABLE)
    arrivals_rng, mix_rng = (np.random.default_rng([7, part]) for part in (1, 2))
    spec, count = (trace, limit) if trace else (f"{SYNTHETIC}{scenario.workload.arrivals}", synthetic)
    return build_requests(load_arrivals(spec, count, arrivals_rng), scenario, mix_rng)


def synthetic_requests(scenario: Scenario, count: int, *, rate_per_s: float, seed: Sequence[int]) -> list[Request]:
    """Return conversations that arrive at random; `rate_per_s` is in the time of the hardware."""
    arrivals_rng, mix_rng = (np.random.default_rng([*seed, part]) for part in (1, 2))
    arrivals = generate_arrivals(count, arrivals_rng, TraceStatistics(rate_per_s=rate_per_s))
    return build_requests(arrivals, scenario, mix_rng)
