"""Tasks whose pods the API server denies. Each is outside all lines, and is retried after a pause of its own.

Pauses grow with every denial. Two things cut them short, for a few tasks at a time: a sign that the cause may have
gone, and a pod that is created at last, upon which others denied for the same cause are retried. So a namespace whose
quota is raised makes progress at once, with more tasks at each step, and one whose quota stays exhausted costs a few
requests.
"""

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random

from perllm.scheduling.denial import DenialCause, PodDenial
from perllm.scheduling.ranking import Rank, RankedTask, Ranking
from perllm.scheduling.timers import Timer, Timers

log = logging.getLogger(__name__)

MAX_ASKED_S = 300.0
"""Longest pause that the API server can ask for."""

RETRIES_PER_SIGN = 4
"""Tasks of a namespace that are retried for each cause that may have gone."""

RETRIES_PER_POD = 2
"""Tasks that are retried for each that got its pod."""

SIGN_INTERVAL_S = 1.0
"""Shortest time between two rounds of retries because the cause may have gone."""

ECHOES = 2
"""How often retries are repeated after a sign: the API server acts on a change a moment after it reports it."""


@dataclass(slots=True)
class _Task:
    namespace: str
    entry: RankedTask[str]
    cause: DenialCause
    failures: int = 0
    timer: Timer | None = None


class Postponed:
    """Tasks that wait for something in their namespace to change.

    Args:
        retry: called with the key of a task that is to be retried.
        timers: end the pauses.
        now_s: returns monotonic seconds.
        rng: for the jitter of pauses.
    """

    def __init__(
        self, retry: Callable[[str], None], *, timers: Timers, now_s: Callable[[], float], rng: Random
    ) -> None:
        self._retry = retry
        self._timers = timers
        self._now_s = now_s
        self._rng = rng
        self._tasks: dict[str, _Task] = {}
        self._rankings: dict[tuple[str, DenialCause], Ranking[str]] = {}
        self._members: Counter[tuple[str, DenialCause]] = Counter()
        self._number = 0
        self._signs: dict[str, int] = {}
        self._counts: Counter[DenialCause] = Counter()

    def __len__(self) -> int:
        return self._counts.total()

    def __contains__(self, key: object) -> bool:
        """Whether a task pauses; one that is being retried does not."""
        task = self._tasks.get(key) if isinstance(key, str) else None
        return task is not None and task.timer is not None

    def count(self, cause: DenialCause) -> int:
        """Return how many tasks are postponed for a cause."""
        return self._counts[cause]

    def put(self, key: str, namespace: str, rank: Rank, denial: PodDenial) -> None:
        """Postpone a task."""
        task = self._tasks.get(key)
        if task is None:
            self._number += 1
            task = self._tasks[key] = _Task(namespace, RankedTask(rank, self._number, key), denial.cause)
            self._members[namespace, denial.cause] += 1
        self._end_pause(task)
        if task.cause is not denial.cause:
            self._leave(task)
            task.cause = denial.cause
            self._members[namespace, denial.cause] += 1
        task.failures += 1
        asked_s = min(denial.retry_after_s, MAX_ASKED_S)
        pause_s = max(task.cause.backoff.pause_s(task.failures, self._rng), asked_s)
        task.timer = self._timers.call_at(self._now_s() + pause_s, partial(self.retry_now, key))
        self._counts[task.cause] += 1
        if (namespace, task.cause) not in self._rankings:
            if task.cause is not DenialCause.API_SERVER:  # watches and writes log its outages
                log.warning("pods of namespace %s are denied, its tasks wait: %s", namespace, denial.message)
            self._rankings[namespace, task.cause] = Ranking(lambda entry: self._is_postponed(entry, denial.cause))
        self._rankings[namespace, task.cause].put(task.entry)

    def remove(self, key: str) -> None:
        """Forget a task and its failures."""
        task = self._tasks.pop(key, None)
        if task is not None:
            self._end_pause(task)
            self._leave(task)

    def retry_now(self, key: str) -> None:
        """Retry a task now."""
        task = self._tasks.get(key)
        if task is not None and task.timer is not None:
            self._end_pause(task)
            self._retry(key)

    def accept(self, key: str) -> None:
        """Note that a pod was created; if it had been denied before, others may be created too."""
        task = self._tasks.get(key)
        if task is None:
            return
        ranking = self._rankings.get((task.namespace, task.cause))
        self.remove(key)
        self._retry_some(task.namespace, task.cause, RETRIES_PER_POD)
        if ranking is not None and ranking.first() is None:
            self._rankings.pop((task.namespace, task.cause), None)
            if task.cause is not DenialCause.API_SERVER:
                log.info("pods of namespace %s are created again (%s)", task.namespace, task.cause)

    def retry_namespace(self, namespace: str) -> None:
        """Retry tasks of a namespace, a few at a time: the causes of their denials may have gone."""
        is_followed = namespace in self._signs
        self._signs[namespace] = ECHOES
        if not is_followed:
            self._follow_sign(namespace)

    def _follow_sign(self, namespace: str) -> None:
        causes = [cause for cause in DenialCause if (namespace, cause) in self._rankings]
        for cause in causes:
            self._retry_some(namespace, cause, RETRIES_PER_SIGN)
        if not causes or not self._signs[namespace]:
            del self._signs[namespace]
            return
        self._signs[namespace] -= 1
        self._timers.call_at(self._now_s() + SIGN_INTERVAL_S, partial(self._follow_sign, namespace))

    def _retry_some(self, namespace: str, cause: DenialCause, count: int) -> None:
        """Retry the most urgent tasks of a namespace that were denied for a cause."""
        ranking = self._rankings.get((namespace, cause))
        for _ in range(count):
            first = ranking.first() if ranking is not None else None
            if first is not None:
                self.retry_now(first.key)

    def _is_postponed(self, entry: RankedTask[str], cause: DenialCause) -> bool:
        task = self._tasks.get(entry.key)
        return task is not None and task.entry is entry and task.cause is cause and task.timer is not None

    def _leave(self, task: _Task) -> None:
        """Forget a cause of a namespace along with its last task that was denied for it."""
        key = task.namespace, task.cause
        self._members[key] -= 1
        if not self._members[key]:
            del self._members[key]
            self._rankings.pop(key, None)

    def _end_pause(self, task: _Task) -> None:
        if task.timer is not None:
            task.timer.cancel()
            task.timer = None
            self._counts[task.cause] -= 1
