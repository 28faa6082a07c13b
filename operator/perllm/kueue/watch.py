"""Watches what Kueue knows and decides about tasks."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from perllm.api import names
from perllm.cluster.client import Client
from perllm.cluster.informer import Informer
from perllm.cluster.writes import WriteQueue
from perllm.kueue.flavor import read_flavor
from perllm.kueue.priority_class import read_priority_class
from perllm.kueue.workload import flavors_path, priority_classes_path, read_workload, workloads_path
from perllm.kueue.workloads import Workloads

log = logging.getLogger(__name__)

PATIENCE_S = 60.0
"""How long the operator waits at its start for what Kueue has decided; what runs goes on in any case."""


class KueueWatch:
    """The Workloads of tasks, kept current.

    Args:
        client: the API server.
        writes: the queue that carries everything there.
        build_informer: returns an informer, from the kind of its objects, their path, what is read of them, what is
            called with changes, and the selectors.
        namespaces: whose tasks are served; all if empty.
        on_change: called with key and uid of a task about whose quota something has changed.
        unix_now: wall clock.

    Attributes:
        workloads: the Workloads.
    """

    def __init__(
        self,
        client: Client,
        writes: WriteQueue,
        build_informer: Callable[..., Informer[Any]],
        *,
        namespaces: Sequence[str],
        on_change: Callable[[str, str], None],
        unix_now: Callable[[], float],
    ) -> None:
        workloads = self.workloads = Workloads(
            client, writes, on_change, is_known=self._has_first_lists, unix_now=unix_now
        )
        self._shared = [
            build_informer("flavor", flavors_path(), read_flavor, workloads.on_flavor),
            build_informer("priority class", priority_classes_path(), read_priority_class, workloads.on_priority_class),
        ]
        self._by_namespace = {
            namespace: build_informer(
                "workload",
                workloads_path(namespace),
                read_workload,
                workloads.on_workload,
                labelSelector=names.TASK_LABEL,
            )
            for namespace in namespaces or (None,)
        }

    @property
    def _informers(self) -> list[Informer[Any]]:
        return [*self._shared, *self._by_namespace.values()]

    async def run(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as group:
            for informer in self._informers:
                group.create_task(informer.run())

    async def wait_until_known(self) -> None:
        """Return once everything was listed, or it takes too long; then tasks in queues wait for it.

        Nothing else does, even if there is no list at all: Kueue may not be installed yet, or be too old.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                for informer in self._informers:
                    await informer.synced.wait()
        for informer in self._informers:
            if not informer.synced.is_set():
                message = "started without %s, which cannot be read yet: tasks in queues of Kueue wait"
                log.warning(message, informer.path)

    def _has_first_lists(self, namespace: str) -> bool:
        own = self._by_namespace.get(namespace) or self._by_namespace.get(None)
        return own is not None and all(informer.synced.is_set() for informer in (*self._shared, own))
