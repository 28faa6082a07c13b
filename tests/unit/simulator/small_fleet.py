"""A node and requests of which everything can be computed by hand: no pod start, no transfer, no prefill."""

from collections.abc import Iterable
from dataclasses import replace

from perllm_lab.hardware.catalogue import A10
from perllm_lab.hardware.gpu import GpuType
from perllm_lab.hardware.link import LinkType
from perllm_lab.hardware.scenario import NodeSpec
from perllm_lab.simulator.fleet import FleetPlan
from perllm_lab.workload.requests import Request

TOKEN_S = 0.001
IDLE_W = 10.0
BUSY_J_PER_TOKEN = 0.05

ONE_BY_ONE = replace(
    A10,
    iteration_base_s=TOKEN_S,
    iteration_per_task_s=0.0,
    slots=1,
    token_energy_j=BUSY_J_PER_TOKEN,
    iteration_energy_j=0.0,
    prefill_per_token_s=0.0,
    idle_power_w=IDLE_W,
    model_load_s=0.0,
    pod_start_s=0.0,
    context_token_s=0.0,
    prefill_least_s=0.0,
)
SHARED = replace(ONE_BY_ONE, iteration_base_s=0.0, iteration_per_task_s=TOKEN_S, slots=10_000)
FAST_LINK = LinkType(bandwidth_bps=1e12, rtt_s=0.0)


def node(name: str = "n-0", gpu: GpuType = ONE_BY_ONE, link: LinkType = FAST_LINK, tier: str = "edge") -> NodeSpec:
    return NodeSpec(name, tier, "chat", gpu, link)


def fleet(*nodes: NodeSpec, seed: int = 0) -> FleetPlan:
    return FleetPlan("test", nodes or (node(),), seed=seed)


def request(at_s: float, seconds: float, deadline_s: float = 1e6, input_bytes: int = 0) -> Request:
    """A request that runs `seconds` alone on a node."""
    return Request("task", "chat", at_s, 1, max(1, round(seconds / TOKEN_S)), input_bytes, deadline_s)


def requests(*rows: tuple[float, float] | tuple[float, float, float]) -> list[Request]:
    """Requests of (arrival, seconds) or (arrival, seconds, deadline)."""
    return [request(*row) for row in rows]


def poisson(at_s: Iterable[float], seconds: Iterable[float]) -> list[Request]:
    return [request(at, span) for at, span in zip(at_s, seconds, strict=True)]
