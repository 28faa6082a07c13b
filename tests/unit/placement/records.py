"""Decisions for the tests of what is made from them."""

import dataclasses
from typing import Any

from perllm.api.task import Tier
from perllm.placement.decision import Decision

USUAL = Decision(
    task_id="uid-t",
    policy="cs-ucb",
    model="m",
    node="n",
    tier=Tier.EDGE,
    gpu_type="T4",
    decided_s=1002.0,
    latency_s=4.0,
    latency_bound_s=5.0,
    energy_j=500.0,
    transmission_energy_j=10.0,
    time_left_s=8.0,
    demand_bps=1e6,
    occupancy=2.0,
    output_tokens=100.0,
    score=0.25,
    slack=0.5,
    resource_slack=0.6,
    meets_deadline=True,
    explored=False,
    candidates=3,
    rejected={"compute": 2, "deadline": 1},
    metrics_age_s=1.5,
    reason="highest index of 3 candidates",
)


def make_decision(**fields: Any) -> Decision:
    return dataclasses.replace(USUAL, **fields)
