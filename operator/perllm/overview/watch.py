"""Keeps an overview current: copies of tasks and nodes that follow the API server."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from perllm.api import names
from perllm.cluster.client import ApiError, Client
from perllm.cluster.informer import Informer
from perllm.cluster.outages import Outages
from perllm.overview.reading import SeenNode, SeenTask, read_listed_task, read_node

HIDDEN = (403, 404)
"""Answers for a collection that the user may not read, or that this cluster does not have."""


class Watch:
    """Tasks and nodes as they are now.

    Args:
        client: the API server.
        namespace: whose tasks; None for all.
        has_nodes: whether nodes may be read.
    """

    def __init__(self, client: Client, namespace: str | None, *, has_nodes: bool) -> None:
        self._outages = Outages(time.monotonic)
        self._tasks = Informer[SeenTask](
            client, names.tasks_path(namespace), read_listed_task, _ignore, kind="task", outages=self._outages
        )
        self._nodes = Informer[SeenNode](
            client, names.node_profiles_path(), read_node, _ignore, kind="node profile", outages=self._outages
        )
        self._has_nodes = has_nodes

    @property
    def tasks(self) -> list[SeenTask]:
        """All tasks."""
        return list(self._tasks.objects.values())

    @property
    def nodes(self) -> list[SeenNode]:
        """All nodes of the fleet."""
        return list(self._nodes.objects.values())

    @property
    def is_current(self) -> bool:
        """Whether the API server is being followed; if not, tasks and nodes are those that were known last."""
        return self._tasks.topic not in self._outages and self._nodes.topic not in self._outages

    async def run(self, show: Callable[[], None], *, interval_s: float | None) -> None:
        """Follow the API server, and show what is there.

        Args:
            show: called once all is known, and after every interval.
            interval_s: seconds between two calls; None for one call only.
        """
        informers: list[Informer[Any]] = [self._tasks, *([self._nodes] if self._has_nodes else [])]
        try:
            async with asyncio.TaskGroup() as group:
                running = [group.create_task(one.run()) for one in informers]
                for one in informers:
                    await one.synced.wait()
                show()
                while interval_s is not None:
                    await asyncio.sleep(interval_s)
                    show()
                for task in running:
                    task.cancel()
        except ExceptionGroup as failures:  # such as a pipe that was closed
            raise failures.exceptions[0] from None


async def may_read(client: Client, path: str) -> bool:
    """Return whether a collection is there and may be read.

    Raises:
        ApiError: the API server does not answer, or fails.
    """
    try:
        await client.get(path, limit="1")
    except ApiError as error:
        if error.status in HIDDEN:
            return False
        raise
    return True


async def list_served_models(client: Client) -> list[str]:
    """Return the models that model servers offer; none if that may not be read."""
    with suppress(ApiError):
        items = (await client.get(names.node_servers_path())).get("items") or ()
        return sorted({str(model) for item in items for model in (item.get("status") or {}).get("models") or ()})
    return []


def _ignore(_old: object, _new: object) -> None:
    """Nothing depends on single changes."""
