"""Decisions for the tests of what is made from them."""

from typing import Any

from perllm.api.task import Tier
from perllm.placement.decision import Assessment, Decision
from perllm.placement.forecast import ArmForecast, Inference, RunEnergy, RunTimes
from unit.placement.parts import replace_fields

USUAL = Decision(
    task_id="uid-t",
    policy="cs-ucb",
    node="n",
    tier=Tier.EDGE,
    gpu_type="T4",
    decided_s=1002.0,
    metrics_age_s=1.5,
    reason="highest index of 3 candidates",
    inference=Inference(
        model="m",
        prompt_tokens=1000.0,
        hint_tokens=None,
        output_tokens=100.0,
        length_centre=4.5,
        length_spread=0.5,
        input_bits=8e6,
        time_left_s=8.0,
    ),
    forecast=ArmForecast(
        times=RunTimes(
            latency_s=4.0,
            fixed_s=2.0,
            transfer_s=0.5,
            reading_s=0.4,
            work_s=0.6,
            token_s=0.02,
            solo_token_s=0.01,
            contention_s=0.002,
            cold=0.0,
        ),
        energy=RunEnergy(energy_j=500.0, transmission_energy_j=10.0, fixed_j=100.0, token_j=4.0),
        latency_low_s=3.0,
        latency_high_s=5.0,
        hit_chance=0.9,
        harm=0.02,
        demand_bps=1e6,
        occupancy=2.0,
        gpus=1.0,
    ),
    assessment=Assessment(
        score=0.25,
        slack=0.5,
        resource_slack=0.6,
        meets_deadline=True,
        explored=False,
        candidates=3,
        excluded={"compute": 2, "late": 1},
    ),
)


def make_decision(**fields: Any) -> Decision:
    """The usual decision with other values of some fields, whichever part they belong to."""
    return replace_fields(USUAL, **fields)
