"""The agent: all parts, wired together and run until it is stopped.

Start    the Lease, the model servers and the assignments; requests are made once each of them is known.
Stop     no new requests, and the operator is shown that no server takes any; those in process end within the grace
         period; their runs are reported; the Lease is given up.

The agent holds no state that matters: after a restart it lists its assignments, and repeats those that have no run.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from importlib.metadata import version
from random import Random

import aiohttp
from prometheus_client import CollectorRegistry

from perllm import health
from perllm.agent.addresses import ServerAddress, read_addresses
from perllm.agent.assignments import Assignments, WatchedAssignments
from perllm.agent.config import AgentConfig
from perllm.agent.discovery import ServerPods
from perllm.agent.lease import AgentLease
from perllm.agent.metrics import AgentMetrics
from perllm.agent.publication import Publication
from perllm.agent.reports import RunReports
from perllm.agent.runs import RunClocks, Runs
from perllm.agent.servers import ModelServers
from perllm.api.node_server import NodeModelServer
from perllm.cluster.client import Client
from perllm.cluster.outages import Outages
from perllm.cluster.sockets import open_socket
from perllm.cluster.writes import WriteQueue
from perllm.completions.endpoint import Endpoint
from perllm.guard import Guard
from perllm.supervision import cancelled_at_exit, keep_running, serve

log = logging.getLogger(__name__)

STOPPING = {"ready": False, "problem": "the agent of the node is stopping"}
DRAIN_TIMEOUT_S = 5.0
PODS_PATIENCE_S = 10.0
CONNECT_S = 5.0
SILENCE_S = 600.0
"""A request is abandoned after this time without a part of its answer; servers send nothing while they queue it."""

KEEP_ALIVE_S = 4.0
"""Servers close connections that are idle for five seconds; a request must not be sent while they do."""


class Agent:
    """All parts of a running agent. Several may run in one process, each for another node.

    Args:
        client: the API server.
        node: name of this node.
        config: the configuration.
        registry: where metrics go; None for an agent that serves neither metrics nor health.
        rng: jitter of pauses.

    Raises:
        ConfigError: the key of a server cannot be read.
    """

    def __init__(
        self,
        client: Client,
        node: str,
        config: AgentConfig,
        *,
        registry: CollectorRegistry | None = None,
        rng: Random | None = None,
    ) -> None:
        self._client = client
        self._node = node
        self._config = config
        self._registry = registry
        self._rng = rng or Random()
        self._configured = read_addresses(config.servers)
        self._session = _open_session()
        self._stopping = asyncio.Event()
        self._has_adopted = False
        self._metrics = AgentMetrics(registry or CollectorRegistry())
        self._guard = Guard(lambda kind: self._metrics.faults.labels(kind).inc(), self._rng)
        self._outages = Outages(time.monotonic)
        self._writes = WriteQueue(self._guard, self._outages, self._rng)
        own = Counter[str]()
        self._servers = self._build_servers(own)
        self._pods = ServerPods(
            client,
            node,
            config.server_namespaces,
            self._adopt,
            guard=self._guard,
            outages=self._outages,
            rng=self._rng,
        )
        self._lease = self._build_lease()
        self._reports = RunReports(client, self._writes, now=time.monotonic)
        self._runs = self._build_runs(own)
        self._publication = self._build_publication()
        self._assignments = [self._build_assignments(namespace) for namespace in config.namespaces or (None,)]
        self._metrics.watch(
            reports=lambda: len(self._writes),
            report_wait_s=lambda: self._reports.wait_s,
            lease=lambda: self._lease.is_valid,
            down=lambda: self._servers.down,
        )

    def _build_servers(self, own: Counter[str]) -> ModelServers:
        return ModelServers(
            self._session,
            self._open_endpoint,
            own=own,
            on_change=self._note_servers,
            interval_s=self._config.probe_interval_s,
            now=time.monotonic,
            guard=self._guard,
            rng=self._rng,
        )

    def _build_lease(self) -> AgentLease:
        return AgentLease(
            self._client,
            self._config.lease_namespace,
            self._node,
            now=time.monotonic,
            unix_now=time.time,
            outages=self._outages,
            on_renewed=lambda: self._runs.advance(),
        )

    def _build_runs(self, own: Counter[str]) -> Runs:
        return Runs(
            self._servers,
            self._reports,
            node=self._node,
            own=own,
            may_start=lambda: self._lease.is_valid,
            clocks=RunClocks(time.monotonic, self._lease.cluster_now),
            metrics=self._metrics,
            guard=self._guard,
            rng=self._rng,
        )

    def _build_publication(self) -> Publication:
        return Publication(
            self._client,
            self._writes,
            self._node,
            version("perllm"),
            self._list_states,
            now=time.monotonic,
            unix_now=time.time,
        )

    def _build_assignments(self, namespace: str | None) -> Assignments:
        return WatchedAssignments(
            self._client,
            self._node,
            namespace,
            self._runs,
            guard=self._guard,
            outages=self._outages,
            rng=self._rng,
        )

    def stop(self) -> None:
        """Stop the agent in order; `run` returns when it is done."""
        self._stopping.set()

    async def run(self) -> None:
        """Run until `stop` is called, then finish what is in process."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._session)
            if self._registry is not None:
                await stack.enter_async_context(self._serve_health(self._registry))
            stack.callback(self._publication.stop)
            stack.push_async_callback(self._runs.stop, 0.0)  # if it is cancelled instead of stopped
            work = await stack.enter_async_context(cancelled_at_exit())
            self._begin(work, "lease", self._lease.run)
            self._begin(work, "writes", self._writes.run)
            self._begin(work, "model servers", self._servers.run)
            for pods in self._pods.informers:
                self._begin(work, "watch of model servers", pods.run)
            for assignments in self._assignments:
                self._begin(work, "assignments", assignments.run)
            work.create_task(self._adopt_first())
            log.info("serving node %s with %d configured model servers", self._node, len(self._configured))
            await self._stopping.wait()
            log.info("stopping")
            await self._finish()

    async def _finish(self) -> None:
        self._publication.note_change()
        await self._runs.stop(self._config.grace_s)
        try:
            async with asyncio.timeout(DRAIN_TIMEOUT_S):
                await self._writes.drain()
        except TimeoutError:
            log.warning("%d writes were not accepted: those requests will be repeated", len(self._writes))
        await self._lease.give_up()

    def _begin(self, work: asyncio.TaskGroup, name: str, part: Callable[[], Awaitable[None]]) -> None:
        """Run a part until the group ends; if it fails, the error is logged and the part is restarted."""
        work.create_task(keep_running(name, part, self._guard, self._rng))

    def _open_endpoint(self, address: ServerAddress) -> Endpoint:
        return Endpoint(
            self._session,
            address.url,
            api_key=address.api_key,
            now=time.monotonic,
            unix_now=time.time,
            silence_s=SILENCE_S,
        )

    async def _adopt_first(self) -> None:
        """Look at the servers once all are known, so that no assignment finds its server missing."""
        try:
            async with asyncio.timeout(PODS_PATIENCE_S):
                await self._pods.wait()
        except TimeoutError:
            log.warning("not all pods of model servers are listed yet: starting without the others")
        self._has_adopted = True
        self._adopt()

    def _adopt(self) -> None:
        if self._has_adopted:
            self._servers.adopt([*self._configured, *self._pods.addresses])

    def _list_states(self) -> tuple[NodeModelServer, ...]:
        """Return what to publish of the servers: once the agent is stopping, none takes requests."""
        states = self._servers.states
        return tuple(one.model_copy(update=STOPPING) for one in states) if self._stopping.is_set() else states

    def _note_servers(self) -> None:
        self._runs.advance()
        if self._servers.synced.is_set():  # until then, what an earlier agent published is closer to the truth
            self._publication.note_change()
        self._metrics.servers.show(self._servers.states)

    def _serve_health(self, registry: CollectorRegistry) -> AbstractAsyncContextManager[None]:
        ready = {
            "the Lease is valid": lambda: self._lease.is_valid,
            "every model server was looked at": self._servers.synced.is_set,
            "the assignments are known": lambda: all(one.is_synced for one in self._assignments),
        }
        app = health.build_app(registry, alive={}, ready=ready)
        return serve(app, self._config.health_host, self._config.health_port)


def _open_session() -> aiohttp.ClientSession:
    """Return a session for requests to model servers, which may take long, but not without any news."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S, socket_factory=open_socket),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"Accept-Encoding": "identity"},  # sizes are limited before anything is decompressed
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=SILENCE_S),
    )
