"""A placer over nodes that a test describes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random

from perllm.api.task import Tier
from perllm.cluster.node import Node
from perllm.learning.learner import Learner
from perllm.placement.circuits import Circuits
from perllm.placement.demand import ONE_SLOT, PodDemand
from perllm.placement.fleet import Bandwidth, Fleet
from perllm.placement.ledger import Ledger
from perllm.placement.loaded_models import LoadedModels
from perllm.placement.placer import Placer
from perllm.placement.request import PlacementRequest
from perllm.policy.contextual import CsUcb
from perllm.policy.problem import Policy

EDGE, CLOUD = Tier.EDGE, Tier.CLOUD


def make_node(
    name: str,
    tier: Tier = EDGE,
    slots: float = 4.0,
    gpu_type: str = "T4",
    *,
    is_open: bool = True,
    labels: Mapping[str, str] | None = None,
) -> Node:
    address = f"10.0.0.{len(name)}"
    return Node(name, f"uid-{name}", tier, gpu_type, slots, frozenset({address}), is_open, labels=labels or {})


@dataclass
class Setting:
    """A placer, what it was given, and the clock it sees; `ages_s` are the ages of the nodes' metrics."""

    placer: Placer
    learner: Learner
    fleet: Fleet
    ledger: Ledger
    circuits: Circuits
    policy: Policy
    ages_s: dict[str, float] = field(default_factory=dict)
    now_s: float = 1000.0


def make_setting(*nodes: Node, bandwidth_bps: float = 100e6, policy: Policy | None = None) -> Setting:
    policy = policy or CsUcb()
    learner, fleet, ledger, circuits = Learner(policy), Fleet(), Ledger(), Circuits(Random(0))
    for node in nodes:
        fleet.put(node, learner.register(node.name, node.gpu_type), Bandwidth(bandwidth_bps, 0.0))
    setting = Setting(None, learner, fleet, ledger, circuits, policy)  # type: ignore[arg-type]
    setting.placer = make_placer(setting, ledger)
    setting.placer.note_bandwidth()
    return setting


def make_placer(setting: Setting, ledger: Ledger, loaded: LoadedModels | None = None) -> Placer:
    """Return a placer over the nodes of a setting, with a ledger of its own."""
    return Placer(
        setting.policy,
        setting.learner,
        setting.fleet,
        ledger,
        circuits=setting.circuits,
        transmission_j_per_bit={EDGE: 1e-6, CLOUD: 2e-6},
        metrics_age_s=lambda name: setting.ages_s.get(name),
        unix_now=lambda: setting.now_s,
        now=lambda: setting.now_s,
        loaded=loaded,
    )


def make_request(
    task_id: str = "uid-t",
    *,
    model: str = "m",
    output_tokens: int | None = 100,
    input_bytes: int = 0,
    tiers: frozenset[Tier] = frozenset(Tier),
    due_s: float = 1060.0,
    demand: PodDemand = ONE_SLOT,
    avoided: frozenset[str] = frozenset(),
) -> PlacementRequest:
    return PlacementRequest(
        task_id=task_id,
        model=model,
        prompt_tokens=1000,
        output_tokens=output_tokens,
        input_bytes=input_bytes,
        tiers=tiers,
        due_s=due_s,
        deadline_s=60.0,
        namespace="lab",
        demand=demand,
        avoided=avoided,
    )
