"""Shows in the profiles of nodes whether they are given tasks. What was learned there is left alone."""

from collections.abc import Awaitable, Callable
from functools import partial

from perllm.api import names
from perllm.api.node_profile import CircuitStatus
from perllm.cluster.client import ApiError, Client
from perllm.cluster.node import Node
from perllm.cluster.writes import Write, WriteQueue


class CircuitWriter:
    """Circuits on their way to the API server.

    Args:
        client: the API server.
        writes: the queue that carries them there.
        node_of: returns a node of the fleet by name, None if it is not there.
        create_profile: creates the profile of a node that has none.
        prefix: of the names of profiles.
    """

    def __init__(
        self,
        client: Client,
        writes: WriteQueue,
        *,
        node_of: Callable[[str], Node | None],
        create_profile: Callable[[Node], Awaitable[None]],
        prefix: str,
    ) -> None:
        self._client = client
        self._writes = writes
        self._node_of = node_of
        self._create_profile = create_profile
        self._prefix = prefix

    def put(self, node: str, status: CircuitStatus) -> None:
        """Ask for the state of a node's circuits to be shown; returns at once."""
        self._writes.put(Write("circuit", node, partial(self._send, node, status)))

    async def _send(self, name: str, status: CircuitStatus) -> None:
        path = names.node_profile_status_path(self._prefix + name)
        patch = {"status": {"circuit": status.to_object()}}
        try:
            await self._client.patch(path, patch)
        except ApiError as error:
            if error.status != 404:
                raise
            node = self._node_of(name)
            if node is None:
                return  # it has gone, and its profile with it
            await self._create_profile(node)
            await self._client.patch(path, patch)
