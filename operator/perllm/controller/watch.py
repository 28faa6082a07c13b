"""The Kopf operator: watches the tasks, and passes what it sees to the controller's event loop.

When Kopf ends, it cancels all asyncio tasks that were started in its loop after it, and when it lists, it blocks its
loop for tenths of a second. So it has a thread and a loop of its own, reads through a session that keeps malformed
answers from it (task_stream.py), and is restarted however it ends; meanwhile decisions and bindings continue.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from random import Random
from typing import Any, cast

import kopf
from kopf._core.reactor.inventory import ResourceMemories, ResourceMemory

from perllm.api import names
from perllm.backoff import Backoff
from perllm.cluster.client import WATCH_S, WATCH_SILENCE_S
from perllm.cluster.credentials import Credentials
from perllm.cluster.outages import Outages
from perllm.controller.handover import Handover
from perllm.controller.task_stream import TOPIC, IsKnown, OnList, OnTask, TaskStream
from perllm.metrics import OperatorMetrics
from perllm.text import error_line

REQUEST = Backoff(first_s=0.5, limit_s=10.0)
RESTART = Backoff(first_s=1.0, limit_s=30.0)
LASTING_S = 60.0
"""After a run of this length the count of failures starts again at one."""

STOP_TIMEOUT_S = 10.0
STUCK_S = 30.0
"""A run that delivers no tasks for this long is restarted: some failures end only parts of Kopf."""

PARTLY_STUCK_S = 300.0
"""The same if only some namespaces are affected: a restart interrupts the others for a second or two."""

CHECK_INTERVAL_S = 1.0
TOKEN_LIFE = timedelta(minutes=10)

PAGE_SIZE = 500


class _Pauses:
    """Pauses between tries of one request, without end; Kopf starts a new iteration for every request."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng

    def __iter__(self) -> Iterator[float]:
        return (REQUEST.pause_s(failures, self._rng) for failures in count(1))


class TaskWatch:
    """Runs Kopf in a thread.

    Args:
        credentials: of the API server.
        on_task: called with every change of a task, in the loop in which the watch was built.
        on_list: called there with the tasks that exist, whenever they were listed.
        metrics: counts restarts.
        outages: is notified of why the watch fails.
        rng: for the jitter of pauses.
        is_known: says whether the status of a task is the operator's own.
        namespaces: whose tasks are watched; all when empty.
    """

    def __init__(
        self,
        credentials: Credentials,
        on_task: OnTask,
        on_list: OnList,
        metrics: OperatorMetrics,
        outages: Outages,
        rng: Random,
        *,
        is_known: IsKnown,
        namespaces: tuple[str, ...] = (),
    ) -> None:
        self._credentials = credentials
        self._on_task = on_task
        self._on_list = on_list
        self._metrics = metrics
        self._outages = outages
        self._rng = rng
        self._is_known = is_known
        self._namespaces = namespaces
        self._stopping = threading.Event()
        self._end_run: Callable[[], None] = lambda: None
        self._stream: TaskStream | None = None
        self._target = asyncio.get_running_loop()
        self._handover = Handover(self._target)
        self._thread = threading.Thread(target=self._supervise, name="task-watch", daemon=True)

    @property
    def is_broken(self) -> bool:
        """Whether nothing will ever be watched again; a watch that is being restarted is not broken."""
        return self._thread.ident is not None and not self._thread.is_alive()

    @property
    def is_ready(self) -> bool:
        """Whether all tasks are known and watched now."""
        stream = self._stream
        return self._thread.is_alive() and stream is not None and stream.is_current

    def knows(self, namespace: str) -> bool:
        """Whether all tasks of a namespace are known and watched now."""
        return self.is_current(namespace, for_s=0.0)

    def is_current(self, namespace: str, *, for_s: float) -> bool:
        """Whether all tasks of a namespace are known and watched now, and have been without a break for `for_s`."""
        stream = self._stream
        since_s = stream.find_since_s(namespace) if self._thread.is_alive() and stream is not None else None
        return since_s is not None and self._target.time() - since_s >= for_s

    def start(self) -> None:
        """Start to watch."""
        self._thread.start()

    async def stop(self) -> None:
        """End the watch and wait for its thread."""
        self._stopping.set()
        self._end_run()
        if self._thread.ident is not None:
            await asyncio.to_thread(self._thread.join, STOP_TIMEOUT_S)

    def _supervise(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            begun_s = self._target.time()
            try:
                asyncio.run(self._run())
                words = "ended without an error"
            except Exception as error:
                words = error_line(error)
            self._stream = None
            if self._stopping.is_set():
                return
            failures = 1 if self._target.time() - begun_s > LASTING_S else failures + 1
            self._metrics.process.watch_restarts.inc()
            if TOPIC not in self._outages:
                self._outages.failed(TOPIC, f"{words}; Kopf is restarted")
            self._stopping.wait(RESTART.pause_s(failures, self._rng))

    async def _run(self) -> None:
        # The flag must belong to Kopf's own loop: for a flag of another thread, Kopf waits in a thread that only the
        # flag ends, and that would hang if anything else ended Kopf.
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        self._end_run = partial(_call, loop, stop.set)
        if self._stopping.is_set():
            return
        stream = self._stream = TaskStream(
            self._on_task,
            self._on_list,
            self._handover,
            self._outages,
            self._rng,
            is_known=self._is_known,
            watches=max(len(self._namespaces), 1),
        )
        watchdog = loop.create_task(_end_when_stuck(stream, stop))
        try:
            await kopf.operator(
                registry=self._build_registry(stream),
                settings=_settings(self._rng),
                memories=_NoMemories(),
                clusterwide=not self._namespaces,
                namespaces=self._namespaces,
                standalone=True,
                # There are no peers; without an identity Kopf looks up a user name, which a container may not have.
                identity=cast(Any, "perllm"),
                stop_flag=stop,
            )
        finally:
            watchdog.cancel()

    def _build_registry(self, stream: TaskStream) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()

        @kopf.on.login(registry=registry)
        async def login(**_: Any) -> kopf.AiohttpSession:
            return kopf.AiohttpSession(
                server=self._credentials.server,
                aiohttp_session=stream.build_session(self._credentials),
                # Service-account tokens rotate; Kopf asks for a new session at this time.
                expiration=datetime.now(UTC) + TOKEN_LIFE if self._credentials.token() else None,
            )

        @kopf.on.event(names.GROUP, names.VERSION, names.TASK_PLURAL, registry=registry)
        async def on_task(event: kopf.RawEvent, **_: Any) -> None:
            stream.hand_on(dict(event["object"]), event["type"] == "DELETED")

        return registry


def _call(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
    """Call a function in the loop of another thread, which may be closed by now."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(function)


async def _end_when_stuck(stream: TaskStream, stop: asyncio.Event) -> None:
    """End a run that no longer delivers tasks."""
    idle_s = partly_idle_s = 0.0
    pages = 0
    while idle_s < STUCK_S and partly_idle_s < PARTLY_STUCK_S:
        await asyncio.sleep(CHECK_INTERVAL_S)
        is_at_work = stream.watched > 0 or stream.pages > pages
        idle_s = 0.0 if is_at_work else idle_s + CHECK_INTERVAL_S
        partly_idle_s = 0.0 if stream.watched == stream.watches else partly_idle_s + CHECK_INTERVAL_S
        pages = stream.pages
    stop.set()


class _NoMemories(ResourceMemories):
    """Remembers nothing between two events: handlers of plain events need no memory, of which a task has one KiB."""

    async def recall(self, raw_body: kopf.RawBody, **options: Any) -> ResourceMemory:
        return await super().recall(raw_body, **{**options, "ephemeral": True})


class _NoDiffBase(kopf.DiffBaseStorage):
    """Stores nothing: handlers of plain events need no differences, and computing them copies every object."""

    def build(self, *, body: kopf.Body, extra_fields: Any = None) -> Any:
        return {}

    def fetch(self, *, body: kopf.Body) -> Any:
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: Any) -> None:
        return None


def _settings(rng: Random) -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.networking.connect_timeout = 10
    settings.networking.request_timeout = 30
    settings.networking.error_backoffs = _Pauses(rng)
    settings.watching.chunk_size = PAGE_SIZE
    settings.watching.server_timeout = WATCH_S
    settings.watching.inactivity_timeout = WATCH_SILENCE_S
    settings.queueing.idle_timeout = 0.5
    settings.persistence.diffbase_storage = _NoDiffBase()
    return settings
