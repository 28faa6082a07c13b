"""The spans of one node: found by pod and by time, in a time that does not grow with how many are kept."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from itertools import chain
from math import inf
from operator import attrgetter

from perllm.energy.spans import FOREVER_S, Span

_find_end_s = attrgetter("end_s")


class NodeSpans:
    """Spans of tasks, at most one for each pod."""

    def __init__(self) -> None:
        self._running: dict[str, Span] = {}
        self._ended: dict[str, Span] = {}
        self._by_end: list[Span] = []

    def __iter__(self) -> Iterator[Span]:
        return chain(self._by_end, self._running.values())

    def __len__(self) -> int:
        return len(self._ended) + len(self._running)

    @property
    def ended(self) -> list[Span]:
        """The spans of tasks that run no longer, in the order of their ends."""
        return list(self._by_end)

    @property
    def begun_s(self) -> float:
        """Since when there have been tasks that still run; infinite if there are none."""
        return min((span.start_s for span in self._running.values()), default=inf)

    def find(self, pod_uid: str) -> Span | None:
        """Return the span of a pod; None if there is none."""
        return self._running.get(pod_uid) or self._ended.get(pod_uid)

    def put(self, span: Span) -> None:
        """Add a span, in place of an earlier one of its pod."""
        known = self._ended.get(span.pod_uid)
        if known == span:
            return
        self._running.pop(span.pod_uid, None)
        if known is not None:
            self._by_end.pop(self._by_end.index(known, bisect_left(self._by_end, known.end_s, key=_find_end_s)))
            del self._ended[span.pod_uid]
        if span.end_s == FOREVER_S:
            self._running[span.pod_uid] = span
        else:
            self._ended[span.pod_uid] = span
            insort(self._by_end, span, key=_find_end_s)

    def forget_running(self, pod_uid: str) -> bool:
        """Forget the span of a running task; return whether there was one."""
        return self._running.pop(pod_uid, None) is not None

    def forget_ended(self, until_s: float) -> list[str]:
        """Forget the spans that ended before a time; return their pods."""
        count = bisect_left(self._by_end, until_s, key=_find_end_s)
        old = [span.pod_uid for span in self._by_end[:count]]
        del self._by_end[:count]
        for pod_uid in old:
            del self._ended[pod_uid]
        return old

    def select(self, first_s: float, last_s: float) -> list[Span]:
        """Return the spans that overlap a time."""
        ended = self._by_end[bisect_right(self._by_end, first_s, key=_find_end_s) :]
        return [span for span in chain(ended, self._running.values()) if span.start_s < last_s]
