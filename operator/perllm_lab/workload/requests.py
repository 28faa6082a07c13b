"""Turns arrivals into requests: payload, deadline and, if wanted, a hint of the length."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import exp
from statistics import fmean

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from perllm_lab.hardware.demand import WorkloadSettings
from perllm_lab.hardware.node import unloaded_latency_s
from perllm_lab.hardware.scenario import NodeSpec, Scenario
from perllm_lab.workload.arrivals import Arrival

Floats = NDArray[np.float64]

DEFAULT_SLACK = (1.0, 3.0)
BYTES_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class Request:
    """One task to be created; times are in seconds of the simulated hardware.

    `output_tokens` is the true length, which no scheduler knows beforehand; `hint_tokens` is what it may be given, and
    `service` the name of what the task belongs to.
    """

    name: str
    model: str
    at_s: float
    prompt_tokens: int
    output_tokens: int
    input_bytes: int
    deadline_s: float
    hint_tokens: int | None = None
    service: str = ""


@dataclass(frozen=True, slots=True)
class RequestMix:
    """How arrivals become requests.

    Attributes:
        payload_share: Share of the requests that carry a payload (an image, a document) in addition to their text.
        payload_bytes: Size of that payload; its mean where it varies.
        slack: Range of the uniform factor between the reference latency and the deadline.
        hint_log_error: Standard deviation of the logarithm of hint / true length; None gives no hint.
        payload_varies: Whether the size of a payload is exponentially distributed.
        deadline_s: Range of a uniform deadline, the same for every request; None derives it from `slack`.
    """

    payload_share: float = 0.3
    payload_bytes: int = 2_000_000
    slack: tuple[float, float] = DEFAULT_SLACK
    hint_log_error: float | None = None
    payload_varies: bool = False
    deadline_s: tuple[float, float] | None = None

    @classmethod
    def of(cls, demand: WorkloadSettings) -> "RequestMix":
        """Returns the mix that a scenario asks for."""
        return cls(
            payload_share=demand.payload_share,
            payload_bytes=round(demand.payload_mb * 1e6),
            slack=demand.slack or DEFAULT_SLACK,
            hint_log_error=demand.hint_log_error,
            payload_varies=demand.payload_law == "exponential",
            deadline_s=demand.deadline_s,
        )


def build_requests(
    arrivals: Sequence[Arrival], scenario: Scenario, rng: Generator, mix: RequestMix | None = None
) -> list[Request]:
    """Gives every arrival a payload and a deadline, by the scenario's section `workload` unless a mix is given.

    The reference latency of a deadline is that of the median node, unloaded, at the mean output length of all
    arrivals: with the request's own length the deadline would reveal the length, which is unknown beforehand. Nodes
    that join later do not count.
    """
    if not arrivals:
        return []
    chosen = mix or RequestMix.of(scenario.workload)
    drawn = [_Drawn.draw(rng, chosen) for _ in arrivals]
    sizes = [_input_bytes(arrival, each, chosen) for arrival, each in zip(arrivals, drawn, strict=True)]
    deadlines_s = [each.deadline for each in drawn]
    if chosen.deadline_s is None:
        references_s = _reference_latencies_s(arrivals, scenario, sizes)
        deadlines_s = [factor * float(at_s) for factor, at_s in zip(deadlines_s, references_s, strict=True)]
    width = len(str(len(arrivals) - 1))
    return [
        Request(
            name=f"task-{index:0{width}d}",
            model=scenario.model,
            at_s=arrival.at_s,
            prompt_tokens=arrival.prompt_tokens,
            output_tokens=arrival.output_tokens,
            input_bytes=sizes[index],
            deadline_s=deadlines_s[index],
            hint_tokens=_hint(arrival, drawn[index], chosen),
            service=arrival.service,
        )
        for index, arrival in enumerate(arrivals)
    ]


@dataclass(frozen=True, slots=True)
class _Drawn:
    has_payload: bool
    payload_factor: float
    deadline: float
    hint_factor: float

    @classmethod
    def draw(cls, rng: Generator, mix: RequestMix) -> "_Drawn":
        payload, deadline, error = rng.random(), rng.uniform(*(mix.deadline_s or mix.slack)), rng.standard_normal()
        factor = rng.standard_exponential() if mix.payload_varies else 1.0
        return cls(bool(payload < mix.payload_share), factor, float(deadline), exp(error * (mix.hint_log_error or 0.0)))


def _input_bytes(arrival: Arrival, drawn: _Drawn, mix: RequestMix) -> int:
    text_bytes = BYTES_PER_TOKEN * arrival.prompt_tokens
    return max(1, round(mix.payload_bytes * drawn.payload_factor)) if drawn.has_payload else text_bytes


def _hint(arrival: Arrival, drawn: _Drawn, mix: RequestMix) -> int | None:
    return None if mix.hint_log_error is None else max(1, round(arrival.output_tokens * drawn.hint_factor))


def _reference_latencies_s(arrivals: Sequence[Arrival], scenario: Scenario, sizes: Sequence[int]) -> Floats:
    prompts = np.array([arrival.prompt_tokens for arrival in arrivals], dtype=float)
    mean_output = fmean(arrival.output_tokens for arrival in arrivals)
    present = [node for node in scenario.nodes() if node.joins_at == 0.0]
    return median_latencies_s(present, prompts, mean_output, np.array(sizes, dtype=float))


def median_latencies_s(nodes: Sequence[NodeSpec], prompts: Floats, output_tokens: float, sizes: Floats) -> Floats:
    """Median over the nodes of the latency of each request where nothing else runs and the model is loaded.

    Args:
        nodes: The nodes.
        prompts: Prompt tokens of each request.
        output_tokens: Length of the answers.
        sizes: Input bytes of each request.
    """
    kinds = Counter((node.gpu, node.link) for node in nodes)
    rows = [
        unloaded_latency_s(gpu, link, prompt_tokens=prompts, output_tokens=output_tokens, input_bytes=sizes)
        for gpu, link in kinds
    ]
    latencies = np.stack(rows, axis=1)
    order = np.argsort(latencies, axis=1)
    ranks = np.cumsum(np.array(list(kinds.values()))[order], axis=1)
    middle = [np.argmax(ranks > rank, axis=1)[:, None] for rank in ((len(nodes) - 1) // 2, len(nodes) // 2)]
    low, high = (np.take_along_axis(latencies, np.take_along_axis(order, at, axis=1), axis=1) for at in middle)
    return np.asarray((low + high)[:, 0] / 2.0, dtype=np.float64)
