"""Writes what else the profiles of nodes show, such as their circuits; learned state is not touched.

With it goes what the node is, so that a profile shows that also before anything was learned on the node.
"""

from collections.abc import Awaitable, Callable
from functools import partial

from perllm.api import names
from perllm.api.base import Resource
from perllm.api.node_profile import NodeProfileStatus
from perllm.cluster.client import ApiError, Client, Object
from perllm.cluster.node import Node
from perllm.cluster.writes import Write, WriteQueue


class ProfileParts:
    """Writes parts of the statuses of profiles to the API server.

    Args:
        client: the API server.
        writes: the queue for writes.
        node_of: returns a node of the fleet by name, None if there is none.
        create_profile: creates the profile of a node that has none.
        prefix: prefix of the names of profiles.
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

    def put(self, part: str, node: str, status: Resource | None) -> None:
        """Queue a write of a part of the profile of a node, or its removal; returns immediately."""
        value = None if status is None else status.to_object()
        self._writes.put(Write(part, node, partial(self._send, node, {part: value})))

    async def _send(self, name: str, status: Object) -> None:
        path = names.node_profile_status_path(self._prefix + name)
        node = self._node_of(name)
        patch = {"status": status | (_describe(node) if node is not None else {})}
        try:
            await self._client.patch(path, patch)
        except ApiError as error:
            if error.status != 404:
                raise
            if node is None:
                return  # the node is gone, and so is its profile
            await self._create_profile(node)
            await self._client.patch(path, patch)


def _describe(node: Node) -> Object:
    return NodeProfileStatus(tier=node.tier, gpu_type=node.gpu_type).model_dump(
        mode="json", by_alias=True, include={"tier", "gpu_type"}
    )
