"""Turns arrivals into requests: payload, deadline and, if wanted, a hint of the length."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp
from statistics import fmean, median

from numpy.random import Generator

from perllm_lab.hardware.node import unloaded_latency_s
from perllm_lab.hardware.scenario import NodeSpec, Scenario
from perllm_lab.workload.arrivals import Arrival

BYTES_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class Request:
    """One task to be created, in uncompressed seconds.

    `output_tokens` is the true length, which no scheduler knows beforehand; `hint_tokens` is what it may be told.
    """

    name: str
    model: str
    at_s: float
    prompt_tokens: int
    output_tokens: int
    input_bytes: int
    deadline_s: float
    hint_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class RequestMix:
    """How requests are made of arrivals.

    Attributes:
        payload_share: Share of the requests that carry a payload (an image, a document) beside their text.
        payload_bytes: Size of that payload.
        slack: Range of the uniform factor between the reference latency and the deadline.
        hint_log_error: Standard deviation of the logarithm of hint / true length; None gives no hint.
    """

    payload_share: float = 0.3
    payload_bytes: int = 2_000_000
    slack: tuple[float, float] = (1.0, 3.0)
    hint_log_error: float | None = None


def build_requests(
    arrivals: Sequence[Arrival], scenario: Scenario, rng: Generator, mix: RequestMix | None = None
) -> list[Request]:
    """Gives every arrival a payload and a deadline.

    The reference latency of a deadline is that of the median node, unloaded, at the mean output length of all
    arrivals: with the request's own length the deadline would tell the length, which nobody can know.
    """
    if not arrivals:
        return []
    chosen = mix or RequestMix()
    nodes = scenario.nodes()
    mean_output = fmean(arrival.output_tokens for arrival in arrivals)
    width = len(str(len(arrivals) - 1))
    return [
        _build(f"task-{index:0{width}d}", arrival, scenario.model, _Drawn.draw(rng, chosen), nodes, mean_output, chosen)
        for index, arrival in enumerate(arrivals)
    ]


@dataclass(frozen=True, slots=True)
class _Drawn:
    has_payload: bool
    slack: float
    hint_factor: float

    @classmethod
    def draw(cls, rng: Generator, mix: RequestMix) -> "_Drawn":
        payload, slack, error = rng.random(), rng.uniform(*mix.slack), rng.standard_normal()
        return cls(bool(payload < mix.payload_share), float(slack), exp(error * (mix.hint_log_error or 0.0)))


def _build(
    name: str,
    arrival: Arrival,
    model: str,
    drawn: _Drawn,
    nodes: Sequence[NodeSpec],
    mean_output: float,
    mix: RequestMix,
) -> Request:
    text_bytes = BYTES_PER_TOKEN * arrival.prompt_tokens
    input_bytes = mix.payload_bytes if drawn.has_payload else text_bytes
    reference_s = median_latency_s(nodes, arrival.prompt_tokens, mean_output, input_bytes)
    hint = max(1, round(arrival.output_tokens * drawn.hint_factor))
    return Request(
        name=name,
        model=model,
        at_s=arrival.at_s,
        prompt_tokens=arrival.prompt_tokens,
        output_tokens=arrival.output_tokens,
        input_bytes=input_bytes,
        deadline_s=drawn.slack * reference_s,
        hint_tokens=None if mix.hint_log_error is None else hint,
    )


def median_latency_s(nodes: Sequence[NodeSpec], prompt_tokens: int, output_tokens: float, input_bytes: int) -> float:
    """Median over the nodes of a request's latency where nothing else runs and the model is loaded."""
    return median(
        unloaded_latency_s(
            node.gpu, node.link, prompt_tokens=prompt_tokens, output_tokens=output_tokens, input_bytes=input_bytes
        )
        for node in nodes
    )
