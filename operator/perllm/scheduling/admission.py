"""Whether a waiting task starts, waits for room, or is rejected: the policy's verdict under the task's own terms.

A task that may be rejected is rejected once no node gives it the chance that the configuration requires. Predictions
can err: if they were too pessimistic about a model, none of its tasks would ever start, and the error would never be
found. So while no task of a model starts, a small share of its rejected tasks is started as probes: tasks that cost no
other task anything, and that would be in time if their prediction were wrong by as much as predictions usually can be.
Predictions may be off by more, for example once nodes recover that were slow while the laws were learned. So after half
a minute without a start, one more task is started, regardless of its prediction.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from perllm.api.task import OnInfeasible
from perllm.placement.placer import Placement
from perllm.policy.problem import Verdict

NO_MODEL_SERVER = "NoModelServer"
"""Reason of a served task that waits because no node has a model server for it."""

DEFERRED = "Deferred"
"""Reason of a task that waits for cheaper energy."""

NO_SERVER_ADVICE = "start one where an agent finds it (kubectl get llmservers), or set config.runner.server_url"

MIN_HIT_CHANCE = 0.5
PROBE_SHARE = 0.05

MAX_ERROR = 4.0
"""Predictions are rarely too long by more than this factor, so a task that would be late even then is a poor probe."""

LONGEST_PAUSE_S = 30.0
"""After this time without a start, a task becomes a probe regardless of its prediction."""

MAX_MODELS = 1000
"""Models whose rejections are counted; bounded, since model names come from tasks."""


@dataclass(slots=True)
class _Pause:
    """Consecutive rejections of a model: when they began, and how many probes they are worth so far."""

    since_s: float
    due: float = 0.0


class Admission:
    """Judges tasks.

    Args:
        min_hit_chance: a task that may be rejected is rejected if no node gives it this chance to be in time,
            regardless of the policy; None leaves it to the policy.
        probe_share: share of the rejected tasks that is started to learn, while no other task of their model starts.
    """

    def __init__(self, min_hit_chance: float | None = MIN_HIT_CHANCE, probe_share: float = PROBE_SHARE) -> None:
        self._min_hit_chance = min_hit_chance
        self._probe_share = probe_share
        self._pauses: dict[str, _Pause] = {}

    def judge(self, placement: Placement, on_infeasible: OnInfeasible) -> Verdict:
        """Return what to do about a waiting task now; a rejection is final.

        A task that may not be rejected starts wherever there is room, once no node is worth waiting for or its deadline
        has passed.
        """
        may_reject = on_infeasible is OnInfeasible.REJECT
        verdict = self._judge_strictly(placement) if may_reject else _judge_patiently(placement)
        if verdict is Verdict.START:
            self._pauses.pop(placement.inference.model, None)
        return verdict

    def explain_rejection(self, placement: Placement, deadline: str) -> str:
        """Return why a task is rejected, with the figures of the node where it is likeliest to be in time."""
        if placement.obstacle:
            return f"{placement.obstacle}; onInfeasible is Reject"
        excluded = ", ".join(f"{count} by {reason}" for reason, count in placement.choice.excluded.items()) or "none"
        message = f"no node is expected to meet the deadline of {deadline} (excluded: {excluded})"
        best = _find_likeliest(placement)
        if best is not None:
            arms = placement.arms
            message += (
                f"; best is {placement.names[best]} with a chance of {arms.hit_chance[best]:.1%} to be in time, and at "
                f"least {self._min_hit_chance or 0.0:.0%} is required; {arms.latency_s[best]:.1f} s expected for the "
                f"{max(placement.inference.time_left_s, 0.0):.1f} s left"
            )
        return f"{message}; onInfeasible is Reject"

    def _judge_strictly(self, placement: Placement) -> Verdict:
        if placement.inference.time_left_s <= 0:
            return Verdict.REJECT
        if placement.eligibility.is_blocked:
            return Verdict.REJECT if placement.eligibility.is_impossible else Verdict.WAIT
        verdict = placement.choice.verdict
        if self._min_hit_chance is None:
            return self._probe_or_reject(placement) if verdict is Verdict.REJECT else verdict
        best = _find_likeliest(placement)
        if best is None:
            return verdict
        if placement.arms.hit_chance[best] < self._min_hit_chance:
            return self._probe_or_reject(placement)
        if verdict is Verdict.REJECT:
            # The policy would reject it, but it has the chance that the configuration requires.
            return Verdict.WAIT if placement.arm is None else Verdict.START
        return verdict

    def _probe_or_reject(self, placement: Placement) -> Verdict:
        return Verdict.START if self._probes(placement) else Verdict.REJECT

    def _probes(self, placement: Placement) -> bool:
        if not self._probe_share or placement.choice.arm is None or not placement.choice.is_harmless:
            return False
        pause = self._find_pause(placement.inference.model, placement.decided_s)
        if placement.arms.latency_s[placement.choice.arm] > MAX_ERROR * placement.inference.time_left_s:
            # The clock may have been set back; without abs, there would be no such probe until it has caught up.
            return abs(placement.decided_s - pause.since_s) >= LONGEST_PAUSE_S
        pause.due += self._probe_share
        return pause.due >= 1.0

    def _find_pause(self, model: str, now_s: float) -> _Pause:
        if len(self._pauses) >= MAX_MODELS and model not in self._pauses:
            self._pauses.clear()
        return self._pauses.setdefault(model, _Pause(now_s))


def lacks_server(placement: Placement) -> bool:
    """Whether a served task waits for a model server that a user has to start."""
    return placement.request.runner is None and placement.eligibility.is_unserved


def explain_deferral(until_s: float) -> str:
    """Return that a task waits for cheaper energy, until a Unix time."""
    return f"waiting for cheaper energy until {datetime.fromtimestamp(until_s, UTC):%Y-%m-%dT%H:%MZ}"


def explain_wait(placement: Placement) -> str:
    """Return why a task waits, without figures: they change all the time, and each change would be written."""
    if not placement.names:
        return "waiting: no node carries the tier label and a GPU"
    if lacks_server(placement):
        return f"waiting: {placement.obstacle}; {NO_SERVER_ADVICE}"
    if placement.obstacle:
        return f"waiting: {placement.obstacle}"
    excluded = ", ".join(placement.choice.excluded)
    return f"waiting: {placement.choice.reason}" + (f" (excluded: {excluded})" if excluded else "")


def _judge_patiently(placement: Placement) -> Verdict:
    if placement.choice.arm is not None:
        return Verdict.START
    is_late = placement.inference.time_left_s <= 0
    return Verdict.START if is_late and placement.arm is not None else Verdict.WAIT


def _find_likeliest(placement: Placement) -> int | None:
    """Return the arm with the best chance to be in time, even without room; None if no arm may take the task."""
    arms = placement.arms
    chances = np.where(arms.allowed & (arms.compute_capacity > 0), arms.hit_chance, -1.0)
    best = int(chances.argmax()) if len(chances) else None
    return best if best is not None and chances[best] >= 0 else None
