"""The constraints C1-C4 of PerLLM and their normalised slacks (arXiv 2405.14636, equation 3).

C1 processing time:  D <= D_max of the task, D predicted from now to completion
C2 compute:          slots in use with the task <= slots of the node
C3 bandwidth:        uplink in use with the task <= uplink of the node
C4 assignment:       each task runs on exactly one node; holds by construction, one choice is made

    f(y) = min{ (D_max - D) / D_max,  (C_max - C) / C_max,  (B_max - B) / B_max },    f(y) >= 0  <=>  C1, C2, C3

The time slack is clipped to [-1, 1]; C2 and C3 are hard, so their slacks matter in [0, 1] only.
"""

from dataclasses import dataclass

import numpy as np

from perllm.policy.problem import (
    EXCLUDED_BANDWIDTH,
    EXCLUDED_COMPUTE,
    EXCLUDED_LATE,
    EXCLUDED_TIER,
    Arms,
    BoolArray,
    FloatArray,
    TaskFeatures,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slacks:
    """Slacks of n arms; `placeable` holds C2, C3 and the task's tiers, `feasible` holds C1 as well."""

    total: FloatArray
    resources: FloatArray
    placeable: BoolArray
    feasible: BoolArray
    excluded: dict[str, int]


def measure_slacks(task: TaskFeatures, arms: Arms) -> Slacks:
    """Return the normalised slacks of every arm; linear in the number of arms."""
    time = time_slack(arms.latency_s, task.time_left_s)
    compute = _resource_slack(arms.compute_used, arms.compute_capacity)
    bandwidth = _resource_slack(arms.bandwidth_used_bps, arms.bandwidth_capacity_bps)
    resources = np.minimum(compute, bandwidth)
    placeable = arms.allowed & (resources >= 0)
    feasible = placeable & (time >= 0)
    remaining = np.ones(len(arms.rows), dtype=np.bool_)
    excluded = {}
    for reason, holds in (
        (EXCLUDED_TIER, arms.allowed),
        (EXCLUDED_COMPUTE, compute >= 0),
        (EXCLUDED_BANDWIDTH, bandwidth >= 0),
        (EXCLUDED_LATE, time >= 0),
    ):
        count = int(np.count_nonzero(remaining & ~holds))
        remaining &= holds
        if count:
            excluded[reason] = count
    return Slacks(
        total=np.minimum(time, resources),
        resources=resources,
        placeable=placeable,
        feasible=feasible,
        excluded=excluded,
    )


def time_slack(latency_s: FloatArray, bound_s: float) -> FloatArray:
    """Return (bound - latency) / bound clipped to [-1, 1]; -1 where no time is left."""
    if bound_s <= 0:
        return np.full_like(latency_s, -1.0)
    return np.clip((bound_s - latency_s) / bound_s, -1.0, 1.0)


def _resource_slack(used: FloatArray, capacity: FloatArray) -> FloatArray:
    with np.errstate(divide="ignore", invalid="ignore"):
        slack = (capacity - used) / capacity
    return np.where(capacity > 0, np.minimum(slack, 1.0), -1.0)
