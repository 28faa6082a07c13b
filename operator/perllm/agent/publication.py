"""Publishes what the node serves in its ``LLMNodeServer``.

What placement depends on, which servers are ready and for which models, is written at once; foreign traffic at most
every two seconds, and the rest of the load less often, since the operator knows its own requests.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from typing import Any

from perllm.api import names
from perllm.api.node_server import MAX_SERVED_MODELS, NodeModelServer, NodeServerStatus
from perllm.api.owners import refer_to_node
from perllm.cluster.client import ApiError, Client, PatchKind
from perllm.cluster.times import to_time
from perllm.cluster.writes import Write, WriteQueue

KIND = "node server"
FOREIGN_S = 2.0
LOAD_S = 10.0
REFRESH_S = 300.0
"""Even what has not changed is written again, in case the object was deleted."""


class Publication:
    """Writes the state of the model servers to the API server.

    Args:
        client: the API server.
        writes: the queue for writes.
        node: name of this node.
        version: version of the agent.
        states: returns what is known about each server.
        now: monotonic clock, in seconds.
        unix_now: Unix time, in seconds.
    """

    def __init__(
        self,
        client: Client,
        writes: WriteQueue,
        node: str,
        version: str,
        states: Callable[[], Sequence[NodeModelServer]],
        *,
        now: Callable[[], float],
        unix_now: Callable[[], float],
    ) -> None:
        self._client = client
        self._writes = writes
        self._node = node
        self._version = version
        self._states = states
        self._now = now
        self._unix_now = unix_now
        self._published: Sequence[NodeModelServer] | None = None
        self._written_s = -inf
        self._timer: asyncio.TimerHandle | None = None

    def note_change(self) -> None:
        """Publish a change of the servers, now or, if it is only about load, when it is due; returns immediately.

        Must be called once to begin with.
        """
        self.stop()
        due_s = self._written_s + choose_pause_s(self._published, self._states()) - self._now()
        if due_s <= 0:
            self._published, self._written_s, due_s = self._states(), self._now(), REFRESH_S
            self._writes.put(Write(KIND, self._node, self._send))
        self._timer = asyncio.get_running_loop().call_later(due_s, self.note_change)

    def stop(self) -> None:
        """Publish nothing more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _send(self) -> None:
        """Write the newest state."""
        status = build_status(self._states(), self._version, self._unix_now())
        patch = [{"op": "add", "path": "/status", "value": status.to_object()}]
        send = partial(
            self._client.patch,
            names.node_server_status_path(self._node),
            patch,
            kind=PatchKind.JSON,
            fieldManager=names.AGENT_FIELD_MANAGER,
        )
        try:
            await send()
        except ApiError as error:
            if error.status != 404:
                raise
            await self._create()
            await send()

    async def _create(self) -> None:
        """Create the object, owned by the node, so that it is deleted with it."""
        node = await self._client.get(f"/api/v1/nodes/{self._node}")
        owner = refer_to_node(self._node, node["metadata"]["uid"])
        body: dict[str, Any] = {
            "apiVersion": names.API_VERSION,
            "kind": names.NODE_SERVER_KIND,
            "metadata": {"name": self._node, "ownerReferences": [owner]},
        }
        try:
            await self._client.post(names.node_servers_path(), body, fieldManager=names.AGENT_FIELD_MANAGER)
        except ApiError as error:
            if error.status != 409:
                raise


def choose_pause_s(published: Sequence[NodeModelServer] | None, states: Sequence[NodeModelServer]) -> float:
    """Return how long after the last write the next one is due, in seconds."""
    if published == states:
        return REFRESH_S
    if published is None or [_standing(one) for one in published] != [_standing(one) for one in states]:
        return 0.0
    if [one.foreign for one in published] != [one.foreign for one in states]:
        return FOREIGN_S
    return LOAD_S


def build_status(states: Sequence[NodeModelServer], version: str, unix_now_s: float) -> NodeServerStatus:
    """Return the status of the node's object."""
    ready = [one for one in states if one.ready]
    models = dict.fromkeys(model for one in ready for model in one.models)
    return NodeServerStatus(
        agent_version=version,
        updated_time=to_time(unix_now_s),
        ready=f"{len(ready)}/{len(states)}",
        models=tuple(models)[:MAX_SERVED_MODELS],
        running=sum(one.running or 0 for one in states),
        foreign=sum(one.foreign for one in states),
        servers=tuple(states),
    )


def _standing(server: NodeModelServer) -> NodeModelServer:
    """Return what of a server does not change with its load."""
    return server.model_copy(update={"running": None, "waiting": None, "foreign": 0, "cache_use": None})
