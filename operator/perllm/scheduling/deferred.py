"""Tasks that wait for an hour in which energy is expected to cost less. They are outside all lines."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from perllm.scheduling.clock import HeldClock
from perllm.scheduling.deferral import StartPlanner
from perllm.scheduling.pending import PendingTask
from perllm.scheduling.timers import Timer, Timers


@dataclass(frozen=True, slots=True)
class _Deferral:
    uid: str
    timer: Timer


class Deferred:
    """Deferred tasks, by key.

    Args:
        queue: called with the key of a task that is to be examined again; it removes the task from here.
        planner: plans when they start.
        timers: end the waits.
        clock: that decisions go by.
    """

    def __init__(
        self, queue: Callable[[str], None], *, planner: StartPlanner, timers: Timers, clock: HeldClock
    ) -> None:
        self._queue = queue
        self._planner = planner
        self._timers = timers
        self._clock = clock
        self._deferrals: dict[str, _Deferral] = {}

    def __len__(self) -> int:
        return len(self._deferrals)

    def __contains__(self, key: str) -> bool:
        return key in self._deferrals

    def put(self, task: PendingTask, until_s: float) -> None:
        """Defer a task until a Unix time."""
        at_s = self._clock.now_s() + until_s - self._clock.unix_s()
        self._deferrals[task.key] = _Deferral(task.uid, self._timers.call_at(at_s, partial(self._queue, task.key)))

    def remove(self, key: str) -> None:
        """Defer a task no longer, and forget when it was to start; other tasks are ignored."""
        deferral = self._deferrals.pop(key, None)
        if deferral is not None:
            deferral.timer.cancel()
            self._planner.forget(deferral.uid)

    def examine_all(self) -> None:
        """Have all of them examined again."""
        for key in list(self._deferrals):
            self._queue(key)
