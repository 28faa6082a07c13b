"""What the baselines share: which arms they may choose, how they break ties, and how they build a `Choice`."""

from collections.abc import Mapping
from functools import partial

import numpy as np

from perllm.policy.problem import (
    EXCLUDED_COMPUTE,
    EXCLUDED_TIER,
    Arms,
    BoolArray,
    Choice,
    Feedback,
    FloatArray,
    TaskFeatures,
)


class Baseline:
    """A policy that learns nothing; those that learn override `learn` and `learn_miss`.

    Attributes:
        name: name in tables and on the command line.
    """

    name: str

    def learn(self, feedback: Feedback) -> float:
        """Return 1 for a task in time, else 0."""
        return float(feedback.is_in_time)

    def learn_miss(self, model: str, row: int, prompt_tokens: float) -> None:
        """Ignore a task that was ended at its deadline."""

    def forget(self, model: str) -> None:
        """Do nothing: what is learned is not kept by model."""

    def export_state(self, model: str, row: int) -> dict[str, float]:
        """Return nothing: a baseline starts from scratch with each process."""
        return {}

    def import_state(self, model: str, row: int, state: Mapping[str, float]) -> None:
        """Accept an empty state only.

        Raises:
            ValueError: there is a state.
        """
        if state:
            raise ValueError(f"{self.name} keeps no state: {dict(state)}")


def find_open(arms: Arms) -> BoolArray:
    """Return the arms that the task's tiers allow and whose node accepts tasks, whether it has room or not."""
    return arms.allowed & (arms.compute_capacity > 0)


def find_roomy(arms: Arms) -> BoolArray:
    """Return the open arms that have a slot for the task."""
    return find_open(arms) & (arms.compute_used <= arms.compute_capacity)


def find_best(scores: FloatArray, eligible: BoolArray, arms: Arms, tie_break: FloatArray | None = None) -> int | None:
    """Return the eligible arm of the highest score; equal ones by the lowest `tie_break`, then by the lowest row.

    Rows decide last, so that the order in which nodes are listed never matters.
    """
    masked = np.where(eligible, scores, -np.inf)
    first = int(masked.argmax()) if len(masked) else 0
    if not len(masked) or not eligible[first]:
        return None
    best = np.flatnonzero((masked == masked[first]) & eligible)
    if len(best) > 1 and tie_break is not None:
        ties = tie_break[best]
        best = best[ties == ties.min()]
    return int(best[0]) if len(best) == 1 else int(best[arms.rows[best].argmin()])


def least_loaded(arms: Arms, eligible: BoolArray) -> int | None:
    """Return the eligible arm of the smallest load, tasks over slots; equal ones by predicted latency."""
    return find_best(-measure_load(arms), eligible, arms, arms.latency_s)


def measure_load(arms: Arms) -> FloatArray:
    """Return tasks over slots of each arm, the task included; inf where there are no slots."""
    load = np.full(len(arms.rows), np.inf)
    np.divide(arms.compute_used, arms.compute_capacity, out=load, where=arms.compute_capacity > 0)
    return load


def build_choice(
    task: TaskFeatures,
    arms: Arms,
    arm: int | None,
    *,
    scores: FloatArray,
    eligible: BoolArray,
    reason: str,
    explored: bool = False,
) -> Choice:
    """Return the choice of `arm`; slacks as in equation (3) of PerLLM, so that records of all policies agree."""
    excluded = partial(_count_excluded, arms, eligible)
    masked = np.where(eligible, scores, -np.inf)
    candidates = int(np.count_nonzero(eligible))
    if arm is None:
        return Choice(arm=None, scores=masked, reason=reason, candidates=candidates, count_excluded=excluded)
    time = _slack(float(arms.latency_s[arm]), task.time_left_s)
    compute = _slack(float(arms.compute_used[arm]), float(arms.compute_capacity[arm]))
    bandwidth = _slack(float(arms.bandwidth_used_bps[arm]), float(arms.bandwidth_capacity_bps[arm]))
    resources = min(compute, bandwidth)
    slack = min(time, resources)
    return Choice(
        arm=arm,
        scores=masked,
        reason=reason,
        candidates=candidates,
        meets_deadline=slack >= 0.0,
        slack=slack,
        resource_slack=resources,
        explored=explored,
        count_excluded=excluded,
    )


def _count_excluded(arms: Arms, eligible: BoolArray) -> dict[str, int]:
    tier = int(np.count_nonzero(~arms.allowed))
    other = int(np.count_nonzero(arms.allowed & ~eligible))
    return {reason: count for reason, count in ((EXCLUDED_TIER, tier), (EXCLUDED_COMPUTE, other)) if count}


def _slack(used: float, capacity: float) -> float:
    return min(max((capacity - used) / capacity, -1.0), 1.0) if capacity > 0 else -1.0
