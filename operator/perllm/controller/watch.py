"""The Kopf operator: watches the tasks, and hands what it sees to the controller's event loop.

Kopf cancels every task that was made in its loop after it started, holds its loop for tenths of a second when it lists,
and ends when the API server answers too strangely. So it has a thread and a loop of its own and is started again
whenever it ends; meanwhile decisions and bindings go on.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import kopf

from perllm.api import names
from perllm.cluster.client import Object
from perllm.cluster.credentials import Credentials
from perllm.metrics import OperatorMetrics

log = logging.getLogger(__name__)

MAX_RESTART_DELAY_S = 30.0
TOKEN_LIFE = timedelta(minutes=10)

OnTask = Callable[[Object, bool], None]
"""Called with (task, deleted) in the controller's loop."""


class _Backoffs:
    """Delays between retries of one request: growing, then constant, for ever."""

    def __iter__(self) -> Iterator[float]:
        delay_s = 0.5
        while True:
            yield delay_s
            delay_s = min(delay_s * 2, 10.0)


class TaskWatch:
    """Runs Kopf in a thread; use as a context manager."""

    def __init__(
        self, credentials: Credentials, on_task: OnTask, metrics: OperatorMetrics, *, namespaces: tuple[str, ...] = ()
    ) -> None:
        self._credentials = credentials
        self._on_task = on_task
        self._metrics = metrics
        self._namespaces = namespaces
        self._stop = threading.Event()
        self._ready = threading.Event()
        self._target = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._supervise, name="task-watch", daemon=True)

    @property
    def is_broken(self) -> bool:
        """Whether nothing will ever be watched again; a watch that is being started again is not broken."""
        return self._thread.ident is not None and not self._thread.is_alive()

    @property
    def is_ready(self) -> bool:
        """Whether tasks are being watched now."""
        return self._thread.is_alive() and self._ready.is_set()

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    async def stop(self) -> None:
        """End the watch and wait for its thread."""
        self._stop.set()
        await asyncio.to_thread(self._thread.join, 10.0)

    def _supervise(self) -> None:
        delay_s = 1.0
        while not self._stop.is_set():
            try:
                asyncio.run(self._run())
            except Exception as error:
                log.warning("the task watch ended and will be started again in %.0f s: %r", delay_s, error)
            self._ready.clear()
            if self._stop.is_set():
                return
            self._metrics.watch_restarts.inc()
            self._stop.wait(delay_s)
            delay_s = min(delay_s * 2, MAX_RESTART_DELAY_S)

    async def _run(self) -> None:
        await kopf.operator(
            registry=self._build_registry(),
            settings=_settings(),
            clusterwide=not self._namespaces,
            namespaces=self._namespaces,
            standalone=True,
            # There are no peers to be told from; kopf would ask for a user name, which a container's user has none of.
            identity=cast(Any, "perllm"),
            stop_flag=self._stop,
            ready_flag=self._ready,
        )

    def _build_registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()

        @kopf.on.login(registry=registry)
        def login(**_: Any) -> kopf.ConnectionInfo:
            identity = self._credentials
            token = identity.token()
            return kopf.ConnectionInfo(
                server=identity.server,
                ca_path=identity.ca_file,
                certificate_path=identity.certificate_file,
                private_key_path=identity.key_file,
                scheme="Bearer" if token else None,
                token=token,
                # Service-account tokens rotate; Kopf asks for a new one when this time has come.
                expiration=datetime.now(UTC) + TOKEN_LIFE if token else None,
            )

        @kopf.on.event(names.GROUP, names.VERSION, names.TASK_PLURAL, registry=registry)
        async def on_task(event: kopf.RawEvent, **_: Any) -> None:
            self._target.call_soon_threadsafe(self._on_task, dict(event["object"]), event["type"] == "DELETED")

        return registry


class _NoDiffBase(kopf.DiffBaseStorage):
    """Remembers nothing: handlers of plain events need no differences, and building them copies every object."""

    def build(self, *, body: kopf.Body, extra_fields: Any = None) -> Any:
        return {}

    def fetch(self, *, body: kopf.Body) -> Any:
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: Any) -> None:
        return None


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.networking.connect_timeout = 10
    settings.networking.request_timeout = 30
    settings.networking.error_backoffs = _Backoffs()
    settings.queueing.idle_timeout = 0.5
    settings.persistence.diffbase_storage = _NoDiffBase()
    return settings
