"""The requests of one run, the same for every policy."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from numpy.random import default_rng

from perllm_lab.hardware.scenario import Scenario
from perllm_lab.simulator.seeds import derive_seed
from perllm_lab.workload.capacity import capacity_per_s, scale_arrivals
from perllm_lab.workload.requests import Request, build_requests
from perllm_lab.workload.sources import load_arrivals


@dataclass(frozen=True, slots=True)
class RequestStatistics:
    """What the operator of a cluster knows of its requests from earlier days; means.

    Attributes:
        rate_per_s: requests per second.
        prompt_tokens: length of a prompt.
        output_tokens: length of an answer.
        input_bytes: size of an input.
        deadline_s: time a request has.
    """

    rate_per_s: float
    prompt_tokens: float
    output_tokens: float
    input_bytes: float
    deadline_s: float

    @classmethod
    def of(cls, requests: Sequence[Request]) -> "RequestStatistics":
        """Returns the statistics of requests ordered by arrival."""
        span_s = requests[-1].at_s - requests[0].at_s
        return cls(
            rate_per_s=(len(requests) - 1) / span_s if span_s > 0.0 else 0.0,
            prompt_tokens=fmean(request.prompt_tokens for request in requests),
            output_tokens=fmean(request.output_tokens for request in requests),
            input_bytes=fmean(request.input_bytes for request in requests),
            deadline_s=fmean(request.deadline_s for request in requests),
        )


def draw_requests(scenario: Scenario, trace: str, tasks: int | None, load: float, seed: int) -> list[Request]:
    """Returns the requests of a run, at the rate that offers `load` of the capacity of the scenario's nodes.

    Args:
        scenario: the nodes and what is asked of them.
        trace: a trace file, or `synthetic:NAME`.
        tasks: how many requests; None for as many as the trace has.
        load: offered work as a share of the capacity.
        seed: of everything random.

    Raises:
        TraceError: there is no such trace, or it is not one.
    """
    arrivals_rng, mix_rng = (
        default_rng(derive_seed(scenario.name, load, seed, purpose)) for purpose in ("arrivals", "requests")
    )
    arrivals = load_arrivals(trace, tasks, arrivals_rng)
    arrivals = scale_arrivals(arrivals, load * capacity_per_s(scenario.nodes(), arrivals))
    return build_requests(arrivals, scenario, mix_rng)
