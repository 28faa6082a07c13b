"""The queue for all writes to the API server, except bindings, for which kube-scheduler waits.

* Newest: a write is about one object, and sends the newest state when its turn comes. A later write of the same kind
  for the same object replaces it.
* Denied: a write that the API server denies is retried after growing pauses. It occupies no place meanwhile, so it does
  not delay other writes.
* Down: while the API server cannot be reached, a single write is sent from time to time as a probe. The first answer
  releases all others.
* Fair: kinds and namespaces take turns, and each has only a few places, so a namespace whose webhook hangs, or a flood
  of events, delays only its own writes.
"""

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from random import Random

from perllm.backoff import Backoff
from perllm.cluster.client import ApiError
from perllm.cluster.outages import API_SERVER, Outages
from perllm.guard import Guard

WIDTH = 96
"""Maximum number of concurrent writes; the API server answers one in a few milliseconds."""

LANE_WIDTH = 16
"""Maximum number of concurrent writes of one kind in one namespace."""

DENIED = Backoff(first_s=0.2, limit_s=60.0)
UNREACHABLE = Backoff(first_s=0.2, limit_s=5.0)

Key = tuple[str, str]
Lane = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Write:
    """A write to the API server.

    Attributes:
        kind: what is written, such as "status"; for logs, and for taking turns.
        name: namespace/name of its object, or only the name.
        send: sends the newest state; called until it does not raise. It handles errors that make the write unnecessary,
            such as that the object is gone.
        is_repeated: whether a failed write is retried. If not, the caller handles and reports failures.
        on_dropped: called if it will never be sent, because a newer write replaced it or its object is gone.
    """

    kind: str
    name: str
    send: Callable[[], Awaitable[None]]
    is_repeated: bool = True
    on_dropped: Callable[[], None] = lambda: None

    @property
    def key(self) -> Key:
        """Key that it shares with the newer writes that would replace it."""
        return self.kind, self.name

    @property
    def lane(self) -> Lane:
        """Lane that takes turns with the others."""
        return _lane_of(self.key)

    @property
    def topic(self) -> str:
        """Topic of its failures in the log, the same for the whole lane."""
        return _topic_of(self.lane)


class WriteQueue:
    """Carries out writes in the background.

    Args:
        guard: records unexpected failures.
        outages: records failures of the API server.
        rng: jitter of pauses.
    """

    def __init__(self, guard: Guard, outages: Outages, rng: Random) -> None:
        self._guard = guard
        self._outages = outages
        self._rng = rng
        self._wanted: dict[Key, Write] = {}
        self._lanes: OrderedDict[Lane, deque[Key]] = OrderedDict()
        self._in_progress: set[Key] = set()
        self._places: Counter[Lane] = Counter()
        self._failures: Counter[Key] = Counter()
        self._denied: Counter[Lane] = Counter()
        self._pauses: dict[Key, asyncio.TimerHandle] = {}
        self._unreachable = 0
        self._closed_until_s = 0.0
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        """Number of unfinished writes."""
        return len(self._wanted) + sum(key not in self._wanted for key in self._in_progress)

    def put(self, write: Write) -> None:
        """Queue a write; returns immediately."""
        key = write.key
        replaced = self._wanted.get(key)
        is_queued = replaced is not None or key in self._in_progress
        self._wanted[key] = write
        self._idle.clear()
        if replaced is not None:
            replaced.on_dropped()
        if not is_queued:
            self._enqueue(key)

    async def once(self, write: Write) -> None:
        """Queue a write and wait for it; it is not retried.

        Raises:
            ApiError: the API server denied it or did not answer, or a newer write for the object replaced it.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def send() -> None:
            try:
                await write.send()
            except Exception as error:
                _settle(done, error)
                raise
            _settle(done)

        words = f"{write.kind} {write.name} was not written: a newer write replaced it, or the object is gone"
        dropped = ApiError(0, "Dropped", words)
        self.put(replace(write, send=send, is_repeated=False, on_dropped=partial(_settle, done, dropped)))
        await done

    def drop(self, kind: str, name: str) -> None:
        """Drop a write that has not begun, because its object is gone."""
        key = kind, name
        dropped = self._wanted.pop(key, None)
        if dropped is not None:
            dropped.on_dropped()
        self._forget(key)
        lane = _lane_of(key)
        if not self._denied[lane]:
            self._outages.forget(_topic_of(lane))
        self._note_idle()

    async def run(self) -> None:
        """Write until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while (write := self._take()) is not None:
                    group.create_task(self._carry_out(write))

    async def drain(self) -> None:
        """Wait until all writes are done."""
        await self._idle.wait()

    def _enqueue(self, key: Key) -> None:
        self._pauses.pop(key, None)
        write = self._wanted.get(key)
        if write is not None:
            self._lanes.setdefault(write.lane, deque()).append(key)
            self._wake.set()

    def _take(self) -> Write | None:
        """Return the next write that may begin; None if there is none at the moment."""
        width = 1 if self._unreachable else WIDTH
        if len(self._in_progress) >= width or asyncio.get_running_loop().time() < self._closed_until_s:
            return None
        for lane in list(self._lanes):
            if self._places[lane] >= LANE_WIDTH:
                continue
            write = self._take_from(lane)
            if write is not None:
                return write
        return None

    def _take_from(self, lane: Lane) -> Write | None:
        keys = self._lanes[lane]
        self._lanes.move_to_end(lane)
        while keys:
            key = keys.popleft()
            if key in self._in_progress:
                continue  # it was dropped and queued again meanwhile; it follows when the current one ends
            write = self._wanted.pop(key, None)  # None if it was dropped meanwhile
            if write is not None:
                self._in_progress.add(key)
                self._places[lane] += 1
                return write
        del self._lanes[lane]
        return None

    async def _carry_out(self, write: Write) -> None:
        pause_s: float | None = None
        try:
            await write.send()
        except ApiError as error:
            pause_s = self._judge(write, error)
        except Exception as error:
            # The error of a write that is not repeated reaches its caller.
            pause_s = self._guard.note(write.kind, write.name, error) if write.is_repeated else None
        except asyncio.CancelledError:
            # The queue is being stopped, and may be started again.
            self._wanted.setdefault(write.key, write)
            self._enqueue(write.key)
            raise
        else:
            self._note_answer()
            self._forget(write.key)
            if not self._denied[write.lane]:
                self._outages.worked(write.topic)
            self._guard.clear(write.kind, write.name)
        finally:
            self._in_progress.discard(write.key)
            self._places[write.lane] -= 1
            if not self._places[write.lane]:
                del self._places[write.lane]
            self._wake.set()
        self._go_on(write, pause_s if write.is_repeated else None)

    def _go_on(self, write: Write, pause_s: float | None) -> None:
        """Schedule the retry of a failed write, or the newer write for the same object."""
        key = write.key
        if pause_s is None:
            self._forget(key)
            if key in self._wanted:
                self._enqueue(key)
        else:
            self._wanted.setdefault(key, write)
            self._pauses[key] = asyncio.get_running_loop().call_later(pause_s, self._enqueue, key)
        self._note_idle()

    def _judge(self, write: Write, error: ApiError) -> float:
        """Return the pause before the next attempt in seconds."""
        if error.is_unreachable:
            self._outages.failed(API_SERVER, error)
            self._close()
            return 0.0
        self._note_answer()
        if write.is_repeated:
            self._outages.failed(write.topic, f"{write.name}: {error}")
        if write.key not in self._failures:
            self._denied[write.lane] += 1
        self._failures[write.key] += 1
        return max(DENIED.pause_s(self._failures[write.key], self._rng), error.retry_after_s)

    def _close(self) -> None:
        """Hold back all writes for a while; concurrent writes that fail together count as one attempt."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._closed_until_s:
            return
        self._unreachable += 1
        pause_s = UNREACHABLE.pause_s(self._unreachable, self._rng)
        self._closed_until_s = loop.time() + pause_s
        loop.call_later(pause_s, self._wake.set)

    def _note_answer(self) -> None:
        if self._unreachable:
            self._unreachable, self._closed_until_s = 0, 0.0
            self._outages.worked(API_SERVER)
            self._wake.set()

    def _forget(self, key: Key) -> None:
        if self._failures.pop(key, 0):
            lane = _lane_of(key)
            self._denied[lane] -= 1
            if not self._denied[lane]:
                del self._denied[lane]
        pause = self._pauses.pop(key, None)
        if pause is not None:
            pause.cancel()

    def _note_idle(self) -> None:
        if not self._wanted and not self._in_progress:
            self._idle.set()


def _lane_of(key: Key) -> Lane:
    kind, name = key
    namespace, slash, _ = name.partition("/")
    return kind, namespace if slash else ""


def _topic_of(lane: Lane) -> str:
    kind, namespace = lane
    return f"writing {kind} in namespace {namespace}" if namespace else f"writing {kind}"


def _settle(done: asyncio.Future[None], error: Exception | None = None) -> None:
    if done.done():
        return  # the caller no longer waits
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)
