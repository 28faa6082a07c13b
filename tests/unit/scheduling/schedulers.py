"""A scheduler over nodes that a test describes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import IO

from perllm.api.task import Tier
from perllm.cluster.node import Node
from perllm.learning.learner import Learner
from perllm.placement.circuits import Circuits
from perllm.placement.fleet import Bandwidth, Fleet
from perllm.placement.ledger import Ledger
from perllm.placement.rehearsal import OtherScheduler
from perllm.policy.contextual import CsUcb
from perllm.policy.problem import Policy
from perllm.scheduling.admission import Admission
from perllm.scheduling.clock import HeldClock
from perllm.scheduling.journal import Inputs
from perllm.scheduling.loop import DispatchRules
from perllm.scheduling.order import Order
from perllm.scheduling.scheduler import Parts, Scheduler
from perllm.scheduling.shares import Shares

UPLINK = Bandwidth(100e6, 0.0)
TRANSMISSION = {Tier.EDGE: 1e-6, Tier.CLOUD: 2e-6}


@dataclass(frozen=True)
class Made:
    """A scheduler and its parts."""

    scheduler: Scheduler
    parts: Parts


def make_scheduler(
    *nodes: Node,
    now_s: Callable[[], float],
    policy: Policy | None = None,
    order: Order = Order.URGENCY,
    weights: Mapping[str, float] | None = None,
    journal: IO[bytes] | None = None,
    notify: Callable[[], None] = lambda: None,
    other: OtherScheduler = OtherScheduler.NONE,
) -> Made:
    policy, rng = policy or CsUcb(), Random(1)
    parts = Parts(policy, Learner(policy), Fleet(), Ledger(), Circuits(rng))
    scheduler = Scheduler(
        parts,
        inputs=Inputs(HeldClock(now_s, now_s), journal, notify),
        rules=DispatchRules(order, Admission()),
        shares=Shares(weights),
        transmission_j_per_bit=TRANSMISSION,
        other=other,
        rng=rng,
    )
    for node in nodes:
        scheduler.put_node(node, UPLINK)
    return Made(scheduler, parts)
