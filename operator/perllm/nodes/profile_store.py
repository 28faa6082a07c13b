"""Keeps the learned state in LLMNodeProfile objects: read at the start, written in the background.

A profile is owned by its node, so it is deleted with it. Several operators in a cluster have separate profiles,
distinguished by a label. A state that this version cannot read is reported in the log and stays on the API server until
the node's next outcome; learning on that node starts over.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial
from math import inf
from random import Random

from perllm.api import names
from perllm.api.node_profile import CircuitState, NodeProfileStatus
from perllm.api.owners import refer_to_node
from perllm.backoff import Backoff
from perllm.cluster.client import ApiError, Client, Object
from perllm.cluster.node import Node
from perllm.cluster.outages import Outages
from perllm.cluster.writes import Write, WriteQueue
from perllm.guard import Guard
from perllm.learning.learner import MAX_ARMS, Learner
from perllm.learning.node_state import NodeState, StateError, read_state
from perllm.nodes.profile_state import export_status

log = logging.getLogger(__name__)

KIND = "profile"
WRITE_INTERVAL_S = 2.0
READ_AGAIN = Backoff(first_s=0.5, limit_s=10.0)

PAGE_SIZE = "50"
"""Profiles that are read at a time; one of 64 models may have some hundred kilobytes."""

QUIET_S = 600.0
"""After this time without a forgotten model, the next one is logged again."""


class ProfileStore:
    """Reads and writes what was learned.

    Attributes:
        tripped: nodes whose profiles showed an open or half-open circuit when they were read.

    Args:
        client: the API server.
        writes: the queue for writes.
        learner: learner whose state is kept.
        restore: restores the learned state of a node and returns the number of outcomes in it.
        policy: name of the policy.
        node_of: returns a node of the fleet by name, None if there is none.
        guard: contains failures about single profiles.
        outages: records failures to read the profiles.
        rng: jitter of pauses.
        instance: name of this instance among several in the cluster; may be empty for one of them.
        count_forgotten: called with the number of models that were forgotten on a node.
        unix_now: wall clock.
    """

    def __init__(
        self,
        client: Client,
        writes: WriteQueue,
        learner: Learner,
        *,
        restore: Callable[[str, NodeState], int],
        policy: str,
        node_of: Callable[[str], Node | None],
        guard: Guard,
        outages: Outages,
        rng: Random,
        instance: str = "",
        count_forgotten: Callable[[int], None] = lambda _: None,
        unix_now: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._writes = writes
        self._learner = learner
        self._restore_node = restore
        self._policy = policy
        self._node_of = node_of
        self._guard = guard
        self._outages = outages
        self._rng = rng
        self._instance = instance
        self._count_forgotten = count_forgotten
        self._unix_now = unix_now
        self._turn = asyncio.Lock()
        self._existing: set[str] = set()
        self._unhoused: set[str] = set()
        self._forgotten: dict[str, int] = {}
        self._logged_s: dict[str, float] = {}
        self._prefix = names.profile_prefix(instance)
        self.tripped: set[str] = set()

    async def load(self) -> int:
        """Restore what was learned before, once the API server answers; return the number of outcomes.

        Raises:
            ApiError: the API server denies it; 404 means that the resources are not installed.
        """
        counts: dict[str, int] = {}
        page = await self._list()
        while True:
            for item in page["items"]:
                self._load(item, counts)
                # Each takes milliseconds. An operator that does not follow its Lease for seconds takes it for lost.
                await asyncio.sleep(0)
            token = page["metadata"].get("continue", "")
            if not token:
                return sum(counts.values())
            page = await self._list(token)

    def _load(self, item: Object, counts: dict[str, int]) -> None:
        name = item["metadata"]["name"].removeprefix(self._prefix)
        if name in counts:
            return  # the list was begun again, since its pages were read too slowly
        counts[name] = 0
        self._existing.add(name)
        self._guard.run("circuit", name, partial(self._read_circuit, name, item), again=False)
        self._guard.run("profile", name, partial(self._restore, name, item, counts), again=False)

    async def run(self) -> None:
        """Queue writes of changed profiles until cancelled."""
        while True:
            await asyncio.sleep(WRITE_INTERVAL_S)
            self.save()

    def save(self) -> None:
        """Queue a write of every changed profile; returns immediately."""
        changed = self._learner.revisions.take_changed()
        returned = {name for name in self._unhoused if self._node_of(name) is not None}
        self._unhoused -= returned
        for name in sorted(changed | returned):
            self._report_forgotten(name)
            self._writes.put(Write(KIND, name, partial(self._send, name)))

    async def _list(self, token: str = "") -> Object:
        """Return a page of the list, the first one if that of the token is not kept any more."""
        own, topic, failures = names.select_instance(self._instance), "reading the learned state", 0
        while True:
            query = {"labelSelector": own, "limit": PAGE_SIZE, "continue": token}
            try:
                listing = await self._client.get(names.node_profiles_path(), **query)
            except ApiError as error:
                if error.status == 410 and token:
                    token = ""
                    continue
                if error.status == 404:
                    hint = "the PerLLM resources are not installed: perllm crds | kubectl apply -f -"
                    raise ApiError(404, error.reason, hint) from error
                if not error.is_transient:
                    raise
                self._outages.failed(topic, error, is_unanswered=error.is_unanswered)
            else:
                self._outages.worked(topic)
                return listing
            failures += 1
            await asyncio.sleep(READ_AGAIN.pause_s(failures, self._rng))

    async def _send(self, name: str) -> None:
        node, revision = self._node_of(name), self._learner.revisions.current(name)
        if node is None:
            # A profile belongs to a node. What was learned there is kept in memory, in case the node returns.
            self._unhoused.add(name)
            self._learner.revisions.note_stored(name, revision)
            return
        if name not in self._existing:
            await self.create(node)
        status = await self._export(node)
        try:
            await self._client.patch(names.node_profile_status_path(self._prefix + name), _to_patch(status))
        except ApiError as error:
            if error.status == 404:
                self._existing.discard(name)
            raise
        self._learner.revisions.note_stored(name, revision)

    def note_missing(self, name: str) -> None:
        """Have the profile of a node written again: it was deleted by hand, or with an earlier node of this name."""
        name = name.removeprefix(self._prefix)
        self._existing.discard(name)
        if self._learner.knows(name) and self._learner.summaries(name):
            self._learner.revisions.change(name)

    async def _export(self, node: Node) -> NodeProfileStatus:
        """Return what is to be written; one after the other, as each takes milliseconds of the event loop."""
        async with self._turn:
            await asyncio.sleep(0)
            return export_status(self._learner, node, self._policy, self._unix_now())

    async def create(self, node: Node) -> None:
        """Create the profile of a node if there is none.

        Raises:
            ApiError: the API server denies it.
        """
        body = {
            "apiVersion": names.API_VERSION,
            "kind": names.NODE_PROFILE_KIND,
            "metadata": {
                "name": self._prefix + node.name,
                "labels": {names.INSTANCE_LABEL: self._instance} if self._instance else {},
                "ownerReferences": [refer_to_node(node.name, node.uid)],
            },
        }
        try:
            await self._client.post(names.node_profiles_path(), body)
        except ApiError as error:
            if error.status != 409:
                raise
        self._existing.add(node.name)

    def _report_forgotten(self, name: str) -> None:
        """Count forgotten models, and log once per burst that a node has had tasks of too many models."""
        forgotten, now_s = self._learner.forgotten[name], asyncio.get_running_loop().time()
        more = forgotten - self._forgotten.get(name, 0)
        if more <= 0:
            return
        self._forgotten[name] = forgotten
        self._count_forgotten(more)
        if now_s - self._logged_s.get(name, -inf) > QUIET_S:
            what = "%s has had tasks of more than %d models; those with the oldest outcomes are forgotten, %d so far"
            log.warning(what, name, MAX_ARMS, forgotten)
        self._logged_s[name] = now_s

    def _read_circuit(self, name: str, item: Object) -> None:
        circuit = (item.get("status") or {}).get("circuit") or {}
        if circuit.get("state") not in (None, CircuitState.CLOSED):
            self.tripped.add(name)

    def _restore(self, name: str, item: Object, counts: dict[str, int]) -> None:
        status = item.get("status") or {}
        if not (status.get("models") or status.get("state")):
            # The profile only shows a circuit; nothing has been learned on this node.
            return
        try:
            counts[name] = self._restore_node(name, read_state(status))
        except StateError as error:
            log.warning("the learned state of %s cannot be read, so learning starts over: %s", name, error)
        self._forgotten[name] = self._learner.forgotten[name]


def _to_patch(status: NodeProfileStatus) -> Object:
    """Return the patch that writes a status and removes fields of schema version 2."""
    fields = status.to_object()
    fields["state"] |= {"recentSince": None, "recentTimes": None}
    return {"status": {**fields, "recent": None}}
