"""The finished tasks: little is kept of each, and they are deleted when their time is over or there are too many."""

import heapq
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import inf
from operator import attrgetter

import orjson

from perllm.api import names
from perllm.cluster.pod import Pod
from perllm.controller.pod_keeper import PodKeeper
from perllm.controller.status_writer import Fields, Stored

COMPRESSION = 1

MIN_KEPT = 64
"""Entries of a heap that are kept in any case, even if their tasks are gone."""

_Entry = tuple[float, str, str]
"""When something is due about a task, its namespace/name and its uid."""


@dataclass(frozen=True, slots=True)
class HistoryLimits:
    """How long finished tasks are kept.

    Attributes:
        default_ttl_s: seconds that a task without ttlAfterFinished is kept after its end; inf for no limit.
        max_tasks: tasks that are kept in each namespace; None for all.
    """

    default_ttl_s: float = inf
    max_tasks: int | None = None


@dataclass(frozen=True, slots=True)
class Stub:
    """What is kept of a task about which nothing more will be known.

    Attributes:
        uid: its identity.
        generation: generation of its spec.
        ended_s: Unix time at which its end was seen.
        expires_s: Unix time at which it is to be deleted; inf for never.
        packed_status: its status as it is stored, in case another client changes it.
        version: the version of the task that has it.
        is_deleting: whether its deletion was requested.
    """

    uid: str
    generation: int
    ended_s: float
    expires_s: float
    packed_status: bytes
    version: int = 0
    is_deleting: bool = False

    @property
    def status(self) -> Fields:
        """Its status."""
        fields: Fields = orjson.loads(zlib.decompress(self.packed_status))
        return fields

    def has(self, present: Stored) -> bool:
        """Whether what is present is its status, or is older."""
        return present.version < self.version or present.version == self.version > 0 or present.fields == self.status


def pack_status(status: Fields) -> bytes:
    """Return a status in a tenth of the memory that it takes as an object."""
    return zlib.compress(orjson.dumps(status), COMPRESSION)


class History:
    """Stubs of finished tasks, by namespace/name.

    Args:
        pods: deletes tasks.
        limits: how long they are kept.
        unix_now: wall clock.
    """

    def __init__(self, pods: PodKeeper, limits: HistoryLimits, unix_now: Callable[[], float]) -> None:
        self._pods = pods
        self._limits = limits
        self._unix_now = unix_now
        self._stubs: dict[str, Stub] = {}
        self._kept: Counter[str] = Counter()
        self._by_expiry: list[_Entry] = []
        self._by_end: dict[str, list[_Entry]] = {}

    def __len__(self) -> int:
        return len(self._stubs)

    def __iter__(self) -> Iterator[tuple[str, Stub]]:
        return iter(list(self._stubs.items()))

    def get(self, key: str) -> Stub | None:
        """Return the finished task of this name; None if there is none."""
        return self._stubs.get(key)

    def contains(self, key: str, uid: str) -> bool:
        """Whether a task is in the history."""
        stub = self._stubs.get(key)
        return stub is not None and stub.uid == uid

    def expire_s(self, ended_s: float, ttl_s: float | None) -> float:
        """Return when a task is to be deleted that was seen to end at `ended_s`; both times Unix seconds."""
        return ended_s + (self._limits.default_ttl_s if ttl_s is None else ttl_s)

    def add(self, key: str, stub: Stub) -> None:
        """Add a finished task."""
        self.forget(key)
        self._stubs[key] = stub
        if stub.is_deleting:
            return
        namespace = _namespace_of(key)
        self._kept[namespace] += 1
        heapq.heappush(self._by_end.setdefault(namespace, []), (stub.ended_s, key, stub.uid))
        if stub.expires_s < inf:
            heapq.heappush(self._by_expiry, (stub.expires_s, key, stub.uid))

    def forget(self, key: str) -> None:
        """Forget a task: it was deleted, or is not finished after all."""
        stub = self._stubs.pop(key, None)
        if stub is not None and not stub.is_deleting:
            self._count_out(key)

    def remove_late(self, pod: Pod) -> None:
        """Delete a pod that was created while its task ended, and that is not needed."""
        if not (pod.is_finished or pod.is_deleting):
            self._pods.delete_pod(pod)

    def tidy(self) -> None:
        """Delete tasks whose time is over, and those that ended first where there are too many."""
        now_s = self._unix_now()
        while self._by_expiry and self._by_expiry[0][0] <= now_s:
            _, key, uid = heapq.heappop(self._by_expiry)
            stub = self._find_kept(key, uid)
            # Since this entry was made, the time to live may have been extended.
            if stub is not None and stub.expires_s <= now_s:
                self._delete(key, uid)
        self._drop_old(self._by_expiry, len(self._stubs), attrgetter("expires_s"))
        for namespace, count in self._kept.items():
            self._drop_old(self._by_end[namespace], count, attrgetter("ended_s"))
        if self._limits.max_tasks is None:
            return
        for namespace in [one for one, count in self._kept.items() if count > self._limits.max_tasks]:
            while self._kept[namespace] > self._limits.max_tasks:
                self._delete(*heapq.heappop(self._by_end[namespace])[1:])

    def _drop_old(self, heap: list[_Entry], count: int, read_time: Callable[[Stub], float]) -> None:
        """Drop the entries of tasks that are gone, or that count from another time by now, once most are such.

        So that is cheap per task; `count` tasks are not gone.
        """
        if len(heap) <= 2 * count + MIN_KEPT:
            return
        heap[:] = {
            (time_s, key, uid)
            for time_s, key, uid in heap
            if (stub := self._find_kept(key, uid)) is not None and read_time(stub) == time_s
        }
        heapq.heapify(heap)

    def _find_kept(self, key: str, uid: str) -> Stub | None:
        stub = self._stubs.get(key)
        return None if stub is None or stub.uid != uid or stub.is_deleting else stub

    def _delete(self, key: str, uid: str) -> None:
        stub = self._find_kept(key, uid)
        if stub is None:
            return
        self._stubs[key] = replace(stub, is_deleting=True)
        self._count_out(key)
        namespace, _, name = key.partition("/")
        self._pods.delete(names.task_path(namespace, name), uid)

    def _count_out(self, key: str) -> None:
        namespace = _namespace_of(key)
        self._kept[namespace] -= 1
        if not self._kept[namespace]:
            del self._kept[namespace], self._by_end[namespace]


def _namespace_of(key: str) -> str:
    return key.partition("/")[0]
