"""What is replayed: the trace that the environment names, else a synthetic one with the statistics of a published."""

import os

import numpy as np

from perllm_lab.hardware.scenario import Scenario
from perllm_lab.workload.requests import Request, build_requests
from perllm_lab.workload.sources import SYNTHETIC, load_arrivals

TRACE_VARIABLE = "PERLLM_TRACE"


def trace_requests(scenario: Scenario, *, synthetic: int, limit: int | None = None) -> list[Request]:
    """Return the first `limit` requests of the named trace, or `synthetic` ones."""
    trace = os.environ.get(TRACE_VARIABLE)
    arrivals_rng, mix_rng = (np.random.default_rng([7, part]) for part in (1, 2))
    spec, count = (trace, limit) if trace else (f"{SYNTHETIC}{scenario.workload.arrivals}", synthetic)
    return build_requests(load_arrivals(spec, count, arrivals_rng), scenario, mix_rng)
