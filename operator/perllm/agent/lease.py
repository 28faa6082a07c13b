"""The Lease by which an agent shows that it is there. While it cannot renew it, it starts nothing new.

After the Lease has expired the operator may give its tasks to other nodes. The agent counts the time from before each
renewal, by its own monotonic clock, so for the agent the Lease expires first.

The answer also shows the time of the API server, so deadlines hold on a node whose clock is wrong, or is set to another
time between two renewals.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from math import inf
from typing import Any

from perllm.api import names
from perllm.api.owners import refer_to_node
from perllm.cluster.client import ApiError, Client, Object
from perllm.cluster.outages import Outages
from perllm.cluster.times import format_time, parse_time_s

LENGTH_S = 30
LAST_LENGTH_S = 1
RENEW_S = 10.0
RETRY_S = 2.0
TIMEOUT_S = 5.0
RESOLUTION_S = 1.0
"""The API server's time is known to the second."""

SKEW_S = 1.0
"""Clocks that may differ by no more than this are taken to agree."""


class AgentLease:
    """Renews a Lease.

    Args:
        client: the API server.
        namespace: namespace of the Lease.
        node: name of this node.
        now: monotonic clock, in seconds.
        unix_now: Unix time of this node, in seconds.
        outages: records when it cannot be renewed.
        on_renewed: called when it is valid again.
    """

    def __init__(
        self,
        client: Client,
        namespace: str,
        node: str,
        *,
        now: Callable[[], float],
        unix_now: Callable[[], float],
        outages: Outages,
        on_renewed: Callable[[], None],
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._name = f"{names.AGENT_LEASE_PREFIX}{node}"
        self._node = node
        self._now = now
        self._unix_now = unix_now
        self._outages = outages
        self._on_renewed = on_renewed
        self._renewed_s = -inf
        self._cluster_offset_s: float | None = None
        self._length_s = LENGTH_S

    @property
    def is_valid(self) -> bool:
        """Whether the last renewal still counts."""
        return self._now() < self._renewed_s + LENGTH_S

    def cluster_now(self) -> float:
        """Return the Unix time of the API server; that of the node until a renewal has shown it."""
        return self._unix_now() if self._cluster_offset_s is None else self._now() + self._cluster_offset_s

    async def run(self) -> None:
        """Renew the Lease until cancelled."""
        topic = f"renewing the lease {self._namespace}/{self._name}"
        while True:
            asked_s = self._now()
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    lease = await self._renew()
            except (ApiError, TimeoutError) as error:
                is_unanswered = isinstance(error, TimeoutError) or (isinstance(error, ApiError) and error.is_unanswered)
                self._outages.failed(topic, error or "no answer in time", is_unanswered=is_unanswered)
                await asyncio.sleep(RETRY_S)
                continue
            self._outages.worked(topic)
            self._note(lease, asked_s)
            await asyncio.sleep(RENEW_S)

    async def give_up(self) -> None:
        """Let the Lease expire at once, so that the operator does not wait for an agent that has ended in order."""
        self._length_s = LAST_LENGTH_S
        with suppress(ApiError, TimeoutError):
            async with asyncio.timeout(TIMEOUT_S):
                await self._renew()

    def _note(self, lease: Object, asked_s: float) -> None:
        was_valid, self._renewed_s = self.is_valid, asked_s
        written_s = read_written_s(lease)
        if written_s is not None:
            now_s, unix_s = self._now(), self._unix_now()
            self._cluster_offset_s = unix_s - find_ahead_s(written_s, unix_s, now_s - asked_s) - now_s
        if not was_valid:
            self._on_renewed()

    async def _renew(self) -> Object:
        path, spec = names.lease_path(self._namespace, self._name), self._build_spec()
        try:
            return await self._client.patch(path, {"spec": spec}, fieldManager=names.AGENT_FIELD_MANAGER)
        except ApiError as error:
            if error.status != 404:
                raise
        return await self._create(path.rpartition("/")[0], spec)

    async def _create(self, collection: str, spec: dict[str, Any]) -> Object:
        """Create the Lease, owned by the node, so that it is deleted with it."""
        node = await self._client.get(f"/api/v1/nodes/{self._node}")
        owner = refer_to_node(self._node, node["metadata"]["uid"])
        body = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._name, "namespace": self._namespace, "ownerReferences": [owner]},
            "spec": spec,
        }
        return await self._client.post(collection, body, fieldManager=names.AGENT_FIELD_MANAGER)

    def _build_spec(self) -> dict[str, Any]:
        renewed = format_time(self._unix_now())
        return {"holderIdentity": self._node, "leaseDurationSeconds": self._length_s, "renewTime": renewed}


def find_ahead_s(written_s: float, answered_s: float, took_s: float) -> float:
    """Return by how many seconds a clock is ahead of that of the API server; 0 if both may agree.

    Args:
        written_s: when the API server wrote, by its own clock, to the second.
        answered_s: when its answer arrived, by the other clock.
        took_s: seconds since it was asked; on a slow link it may have written at any time since then.
    """
    most_s = answered_s - written_s
    least_s = most_s - took_s - RESOLUTION_S
    return 0.0 if least_s <= SKEW_S and most_s >= -SKEW_S else (least_s + most_s) / 2


def read_written_s(lease: Mapping[str, Any]) -> float | None:
    """Return when the API server wrote this answer to a renewal, to the second; None if it does not say."""
    entries = (lease.get("metadata") or {}).get("managedFields") or ()
    own = (one for one in entries if one.get("manager") == names.AGENT_FIELD_MANAGER)
    return max((at_s for one in own if (at_s := parse_time_s(one.get("time"))) is not None), default=None)
