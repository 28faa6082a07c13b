"""The requests of one run, the same for every policy."""

from numpy.random import default_rng

from perllm_lab.hardware.scenario import Scenario
from perllm_lab.simulator.seeds import derive_seed
from perllm_lab.workload.arrivals import Arrival
from perllm_lab.workload.capacity import capacity_per_s, scale_arrivals
from perllm_lab.workload.requests import Request, build_requests
from perllm_lab.workload.sources import load_arrivals


def draw_requests(scenario: Scenario, trace: str, tasks: int | None, load: float, seed: int) -> list[Request]:
    """Return the requests of a run, at the rate that offers `load` of the capacity of the scenario's nodes.

    Args:
        scenario: the nodes and their workload.
        trace: a trace file, or `synthetic:NAME`.
        tasks: how many requests; None for as many as the trace has.
        load: offered work as a share of the capacity.
        seed: of everything random.

    Raises:
        TraceError: there is no such trace, or it cannot be read.
    """
    mix_rng = default_rng(derive_seed(scenario.name, load, seed, "requests"))
    arrivals = draw_arrivals(scenario, trace, tasks, load, seed)
    arrivals = scale_arrivals(arrivals, load * capacity_per_s(scenario.nodes(), arrivals))
    return build_requests(arrivals, scenario, mix_rng)


def draw_arrivals(scenario: Scenario, trace: str, tasks: int | None, load: float, seed: int) -> list[Arrival]:
    """Return the arrivals of a run at the rate of the trace.

    Raises:
        TraceError: there is no such trace, or it cannot be read.
    """
    return load_arrivals(trace, tasks, default_rng(derive_seed(scenario.name, load, seed, "arrivals")))
