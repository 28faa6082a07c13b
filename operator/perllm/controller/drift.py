"""Compares what is in flight with the pods of tasks, and repairs the ledger where they differ for too long.

The ledger follows events. If one were missed, a slot would seem taken, or free, for the life of the process.
"""

import asyncio
import logging
from collections.abc import Callable

from perllm.controller.pod_accounts import PodAccounts, find_flying
from perllm.controller.tracking import Tracked, Tracking
from perllm.metrics import OperatorMetrics
from perllm.placement.fleet import Fleet
from perllm.placement.ledger import RESERVATION_S, Ledger
from perllm.scheduling.scheduler import Scheduler

log = logging.getLogger(__name__)

INTERVAL_S = 2.0
GRACE_S = RESERVATION_S
"""A difference this old is not due to an event that is still on its way."""


class DriftMonitor:
    """Compares the ledger with the pods, and repairs it.

    Args:
        tracking: the tasks.
        accounts: know which pods are in flight.
        ledger: the tasks in flight.
        fleet: the nodes; pods on others are not counted.
        scheduler: repairs the ledger.
        is_annotated: whether a uid is that of an annotated pod, which belongs to no task.
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
        metrics: OperatorMetrics,
        now_s: Callable[[], float],
    ) -> None:
        self._tracking = tracking
        self._accounts = accounts
        self._ledger = ledger
        self._fleet = fleet
        self._scheduler = scheduler
        self._is_annotated = is_annotated
        self._metrics = metrics
        self._now_s = now_s
        self._since_s: dict[str, float] = {}

    async def run(self) -> None:
        """Compare until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL_S)
            self.compare()

    def compare(self) -> None:
        """Repair every difference that has lasted."""
        now_s = self._now_s()
        confirmed = {task_id for task_id in self._ledger.confirmed if not self._is_annotated(task_id)}
        pods = {one.task.uid: one for one in self._tracking if self._is_in_flight(one, confirmed)}
        differing = confirmed ^ pods.keys()
        self._since_s = {task_id: self._since_s.get(task_id, now_s) for task_id in differing}
        lasting = [task_id for task_id, since_s in self._since_s.items() if now_s >= since_s + GRACE_S]
        self._metrics.queue.ledger_drift.set(len(lasting))
        # The gauge is 0 again at the next comparison, long before it is scraped.
        self._metrics.queue.ledger_repairs.inc(len(lasting))
        for task_id in lasting:
            log.error("task %s is %s; the ledger is repaired", task_id, _describe(task_id in confirmed))
            tracked = pods.get(task_id)
            if tracked is None:
                self._scheduler.drop(task_id)
            else:
                self._accounts.count_again(tracked)

    def _is_in_flight(self, tracked: Tracked, confirmed: set[str]) -> bool:
        if tracked.task.uid in confirmed:
            return find_flying(tracked) is not None
        decision = self._accounts.find_flight(tracked)
        return decision is not None and decision.node in self._fleet.nodes


def _describe(is_counted: bool) -> str:
    return "counted as in flight, but has no pod in flight" if is_counted else "in flight, but was not counted"
