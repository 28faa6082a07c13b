"""When a pod started and ended: the clock of its node is trusted only within what is possible.

A pod cannot start before the API server has created it, nor end after the operator or the API server has seen the end.
Times within these bounds are taken from the node, to the second, or from the container's own report where both agree.
Once a time lies outside, the clock of the node is wrong and none of that pod's times are trusted: the moments at which
its start and its end were seen count instead.

Agents report the times of requests by the clock of the API server, and after an outage long after they have ended. So
how late a report is seen says nothing about the clock of its node.
"""

import logging
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from perllm.cluster.pod import Pod, Timing

log = logging.getLogger(__name__)

RESOLUTION_S = 1.0
"""Kubernetes writes whole seconds."""

SKEWED_S = 5.0
"""A clock that is off by more is not trusted at all; less may also be kubelet's delay in reporting."""

MIN_SIGHTS = 3
SIGHTS_KEPT = 8


@dataclass(frozen=True, slots=True)
class Bounds:
    """The range in which a pod's times lie, in Unix seconds."""

    from_s: float
    by_s: float

    def admit(self, time_s: float | None) -> bool:
        """Whether a time in whole seconds may be true; a missing one contradicts nothing."""
        return time_s is None or self.from_s - RESOLUTION_S <= time_s <= self.by_s + RESOLUTION_S

    def clamp(self, time_s: float) -> float:
        """Return the time closest to `time_s` that may be true."""
        return max(self.from_s, min(time_s, self.by_s))


class Clocks:
    """Watches the clocks of nodes.

    Args:
        is_member: whether a node belongs to the fleet; the clocks of others are not watched.
        show: called at every estimate with a node and the seconds by which its clock is ahead; None once it is gone.
    """

    def __init__(self, is_member: Callable[[str], bool], show: Callable[[str, float | None], None]) -> None:
        self._is_member = is_member
        self._show = show
        self._ahead_s: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=SIGHTS_KEPT))
        self._skewed: set[str] = set()

    def see(self, pod: Pod, before: Pod | None, now_s: float) -> Pod:
        """Return the pod as it is seen now, with times that can be true.

        Args:
            pod: as its node reports it.
            before: as it was last seen; None if it is seen for the first time.
            now_s: Unix time by the operator's clock.
        """
        if before is not None and before.uid != pod.uid:
            before = None
        if before is not None and before.is_finished:
            # The end that was seen is kept: neither its deletion nor a corrected clock changes it.
            return replace(
                before,
                is_deleting=pod.is_deleting,
                gone_by_s=pod.gone_by_s,
                is_retained=pod.is_retained,
                linger_s=pod.linger_s,
            )
        if pod.is_served:
            return bound_times(pod, before, now_s)
        if before is not None and pod.node is not None and self._is_member(pod.node):
            self._compare(pod.node, pod, before, now_s)
        return bound_times(pod, before, now_s, is_trusted=pod.node not in self._skewed)

    def forget(self, node: str) -> None:
        """Forget a node that is gone."""
        self._skewed.discard(node)
        if self._ahead_s.pop(node, None) is not None:
            self._show(node, None)

    def _compare(self, node: str, pod: Pod, before: Pod, now_s: float) -> None:
        """Compare the moments at which changes were seen with the times that the node gives them."""
        by_s = _find_bounds(pod, now_s).by_s
        news = [
            stated_s
            for stated_s, known_s in ((pod.started_s, before.started_s), (pod.finished_s, before.finished_s))
            if stated_s is not None and known_s is None
        ]
        if not news:
            return
        sights = self._ahead_s[node]
        sights.extend(stated_s + RESOLUTION_S / 2 - by_s for stated_s in news)
        # Changes are seen late, never early: the one that was seen soonest counts.
        ahead_s = max(sights)
        self._show(node, ahead_s if abs(ahead_s) > RESOLUTION_S else 0.0)
        if len(sights) >= MIN_SIGHTS:
            self._judge(node, ahead_s)

    def _judge(self, node: str, ahead_s: float) -> None:
        is_skewed = abs(ahead_s) > SKEWED_S
        if is_skewed and node not in self._skewed:
            where = "ahead of" if ahead_s > 0 else "behind"
            message = "the clock of node %s is about %.0f s %s the operator's, which is used instead"
            log.warning(message, node, abs(ahead_s), where)
        elif not is_skewed and node in self._skewed:
            log.info("the clock of node %s is correct again", node)
        (self._skewed.add if is_skewed else self._skewed.discard)(node)


def bound_times(pod: Pod, before: Pod | None, now_s: float, *, is_trusted: bool = True) -> Pod:
    """Return the pod with times that can be true.

    Args:
        pod: as its node reports it.
        before: as it was last returned from here; None if it is seen for the first time.
        now_s: Unix time by the operator's clock.
        is_trusted: whether its node's clock is trusted.
    """
    idle_since_s = _find_idle_since(pod, before, now_s)
    if idle_since_s != pod.idle_since_s:
        pod = replace(pod, idle_since_s=idle_since_s)
    if before is not None and before.finished_s is not None:
        return replace(pod, started_s=before.started_s, finished_s=before.finished_s, timing=before.timing)
    if pod.started_s is None and not pod.is_finished:
        return pod
    bounds = _find_bounds(pod, now_s)
    was_believed = before is None or before.timing is Timing.NODE
    if is_trusted and was_believed and bounds.admit(pod.started_s) and bounds.admit(pod.finished_s):
        return _believe(pod, before, bounds)
    return _replace_times(pod, before, bounds)


def _find_bounds(pod: Pod, now_s: float) -> Bounds:
    """Return the bounds of what is new about a pod; the API server's clock has whole seconds."""
    from_s = pod.created_s or 0.0
    stored_s = now_s if pod.reported_s is None else pod.reported_s + RESOLUTION_S
    return Bounds(from_s, max(from_s, min(now_s, stored_s)))


def _find_idle_since(pod: Pod, before: Pod | None, now_s: float) -> float | None:
    """Return since when a pod has been idle; if it is new, since the API server bound it."""
    if pod.idle_since_s is None:
        return None
    if before is None:
        return min(pod.idle_since_s, now_s)
    return now_s if before.idle_since_s is None else before.idle_since_s


def _believe(pod: Pod, before: Pod | None, bounds: Bounds) -> Pod:
    """Return the pod with the times of its node, as precisely as known."""
    known_s = before.started_s if before else None
    started_s = _refine(pod.started_s, pod.report.started_at if pod.report else None, known_s)
    started_s = None if started_s is None else bounds.clamp(started_s)
    if pod.finished_s is None and not pod.is_finished:
        return replace(pod, started_s=started_s)
    by_s = bounds.by_s if pod.finished_s is None else pod.finished_s + RESOLUTION_S
    finished_s = _refine(pod.finished_s, pod.report.finished_at if pod.report else None, by_s) or bounds.by_s
    finished_s = max(bounds.clamp(finished_s), started_s or bounds.from_s)
    return replace(pod, started_s=started_s, finished_s=finished_s)


def _refine(coarse_s: float | None, reported: datetime | None, otherwise_s: float | None) -> float | None:
    """Return the time in a report if Kubernetes' own time of the same moment agrees with it."""
    if coarse_s is not None and reported is not None:
        precise_s = reported.timestamp()
        if coarse_s - RESOLUTION_S <= precise_s <= coarse_s + 2 * RESOLUTION_S:
            return precise_s
    return coarse_s if otherwise_s is None else otherwise_s


def _replace_times(pod: Pod, before: Pod | None, bounds: Bounds) -> Pod:
    """Return the pod with the moments at which its start and its end were seen."""
    known_s = before.started_s if before else None
    if pod.finished_s is None and not pod.is_finished:
        return replace(pod, started_s=bounds.by_s if known_s is None else known_s, timing=Timing.OPERATOR)
    # However wrong a clock is, the durations that it measures are right.
    took_s = max(pod.finished_s - pod.started_s, 0.0) if pod.finished_s and pod.started_s else 0.0
    if known_s is None and pod.started_s is not None:
        known_s = bounds.clamp(bounds.by_s - took_s)
    was_seen = before is not None or pod.reported_s is not None
    timing = Timing.OPERATOR if was_seen else Timing.UNKNOWN
    return replace(pod, started_s=known_s, finished_s=bounds.by_s, timing=timing)
