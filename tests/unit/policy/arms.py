"""Tasks and arms for the tests of policies."""

from collections.abc import Sequence

import numpy as np

from perllm.policy.problem import Arms, Feedback, TaskFeatures


def make_task(model: str = "m", time_left_s: float = 10.0) -> TaskFeatures:
    return TaskFeatures(
        model=model, prompt_tokens=100, output_tokens=100, input_bytes=0, time_left_s=time_left_s, deadline_s=10.0
    )


def make_arms(
    *,
    latency_s: Sequence[float],
    energy_j: Sequence[float] | None = None,
    compute: Sequence[tuple[float, float]] | None = None,
    bandwidth: Sequence[tuple[float, float]] | None = None,
    allowed: Sequence[bool] | None = None,
    in_flight: Sequence[float] | None = None,
    hit_chance: Sequence[float] | None = None,
    harm: Sequence[float] | None = None,
    marginal_energy_j: Sequence[float] | None = None,
    transmission_j: Sequence[float] | None = None,
    work: Sequence[float] | None = None,
    load: Sequence[float] | None = None,
    doubt: Sequence[float] | None = None,
    plays: Sequence[float] | None = None,
    spread: Sequence[float] | None = None,
    joule_cost: Sequence[float] | None = None,
    idle_j: Sequence[float] | None = None,
) -> Arms:
    """Return arms; `compute` and `bandwidth` are pairs of (used with the task, capacity), roomy by default."""
    n = len(latency_s)
    used, slots = np.array(compute or [(1, 100)] * n, dtype=np.float64).reshape(n, 2).T
    sent, uplink = np.array(bandwidth or [(0, 1e9)] * n, dtype=np.float64).reshape(n, 2).T
    return Arms(
        rows=np.arange(n),
        allowed=np.array(allowed or [True] * n, dtype=np.bool_),
        latency_s=np.array(latency_s, dtype=np.float64),
        energy_j=np.array(energy_j or [1.0] * n, dtype=np.float64),
        compute_used=used,
        compute_capacity=slots,
        bandwidth_used_bps=sent,
        bandwidth_capacity_bps=uplink,
        in_flight=np.array(in_flight or [0.0] * n),
        is_cloud=np.zeros(n, dtype=np.bool_),
        hit_chance=np.array(hit_chance or [1.0] * n),
        harm=np.array(harm or [0.0] * n),
        marginal_energy_j=np.array(marginal_energy_j or [1.0] * n, dtype=np.float64),
        transmission_j=np.array(transmission_j or [0.0] * n),
        work=np.array(work or [1.0] * n),
        load=np.array(load or [0.0] * n),
        doubt=np.array(doubt or [0.0] * n),
        plays=np.array(plays or [1.0] * n),
        spread=np.array(spread or [1.0] * n),
        joule_cost=np.array(joule_cost or [1.0] * n),
        idle_j=np.array(idle_j or [0.0] * n),
    )


def make_feedback(
    row: int, *, energy_j: float = 0.0, latency_s: float = 10.0, resource_slack: float = 1.0, prompt_tokens: float = 0.0
) -> Feedback:
    """Return the feedback of a run that wrote 100 tokens, with a deadline of 10 s: its time slack is 0 by default."""
    return Feedback(
        model="m",
        row=row,
        latency_s=latency_s,
        deadline_s=10.0,
        energy_j=energy_j,
        prompt_tokens=prompt_tokens,
        output_tokens=100.0,
        resource_slack=resource_slack,
    )
