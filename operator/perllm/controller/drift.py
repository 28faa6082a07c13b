"""Compares what is in flight with the pods of tasks, and repairs the ledger where they differ for too long.

The ledger follows events. If one were missed, a slot would seem taken, or free, for the life of the process. While the
pods cannot be watched they are known as they were, which is no difference of the ledger.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping

from perllm.cluster.client import WATCH_SILENCE_S
from perllm.controller.pod_accounts import PodAccounts, find_flying
from perllm.controller.tracking import Tracked, Tracking
from perllm.metrics import OperatorMetrics
from perllm.placement.fleet import Fleet
from perllm.placement.ledger import RESERVATION_S, Ledger
from perllm.scheduling.scheduler import Scheduler
from perllm.slices import Slices

log = logging.getLogger(__name__)

INTERVAL_S = 2.0
GRACE_S = WATCH_SILENCE_S + RESERVATION_S
"""A difference this old is not due to an event that is still on its way, nor to a watch that is silent unnoticed."""


class DriftMonitor:
    """Compares the ledger with the pods, and repairs it.

    Args:
        tracking: the tasks.
        accounts: know which pods are in flight.
        ledger: the tasks in flight.
        fleet: the nodes; pods on others are not counted.
        scheduler: repairs the ledger.
        is_annotated: whether a uid is that of an annotated pod, which belongs to no task.
        sees_pods: whether the pods of tasks can be watched at the moment.
        metrics: show the drift.
        now_s: monotonic clock.
    """

    def __init__(
        self,
        tracking: Tracking,
        accounts: PodAccounts,
        ledger: Ledger,
        fleet: Fleet,
        scheduler: Scheduler,
        *,
        is_annotated: Callable[[str], bool],
        sees_pods: Callable[[], bool],
        metrics: OperatorMetrics,
        now_s: Callable[[], float],
    ) -> None:
        self._tracking = tracking
        self._accounts = accounts
        self._ledger = ledger
        self._fleet = fleet
        self._scheduler = scheduler
        self._is_annotated = is_annotated
        self._sees_pods = sees_pods
        self._metrics = metrics
        self._now_s = now_s
        self._since_s: dict[str, float] = {}

    async def run(self) -> None:
        """Compare until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL_S)
            await self.compare()

    async def compare(self) -> None:
        """Repair every difference that has lasted; in slices, so each task is compared, and repaired, at one moment."""
        slices, compared = Slices(self._now_s), set[str]()
        known, self._since_s = self._since_s, {}
        repairs = 0
        if not self._sees_pods():
            return
        for tracked in self._tracking:
            if self._tracking.get(tracked.task.key) is tracked:
                compared.add(tracked.task.uid)
                is_counted = self._ledger.is_confirmed(tracked.task.uid)
                if is_counted is not self._is_in_flight(tracked, is_counted=is_counted):
                    repairs += self._note(tracked.task.uid, known, None if is_counted else tracked)
            await slices.pause()
        for task_id in set(self._ledger.confirmed) - compared:
            if self._ledger.is_confirmed(task_id) and not self._is_annotated(task_id):
                repairs += self._note(task_id, known, None)
            await slices.pause()
        self._metrics.queue.ledger_drift.set(repairs)
        # The gauge is 0 again at the next comparison, long before it is scraped.
        self._metrics.queue.ledger_repairs.inc(repairs)

    def _note(self, task_id: str, known: Mapping[str, float], uncounted: Tracked | None) -> bool:
        """Note a difference, and repair it if it has lasted; return whether it has.

        Args:
            task_id: of the task.
            known: since when there have been differences.
            uncounted: the task if it is in flight but not counted; None if it is counted but not in flight.
        """
        now_s = self._now_s()
        since_s = self._since_s[task_id] = known.get(task_id, now_s)
        if now_s < since_s + GRACE_S:
            return False
        log.error("task %s is %s; the ledger is repaired", task_id, _describe(uncounted is None))
        if uncounted is None:
            self._scheduler.drop(task_id)
        else:
            self._accounts.count_again(uncounted)
        return True

    def _is_in_flight(self, tracked: Tracked, *, is_counted: bool) -> bool:
        if is_counted:
            return find_flying(tracked) is not None
        decision = self._accounts.find_flight(tracked)
        return decision is not None and decision.node in self._fleet.nodes


def _describe(is_counted: bool) -> str:
    return "counted as in flight, but has no pod in flight" if is_counted else "in flight, but was not counted"
