"""The model servers of the node: the state of each, and which of them can be asked for a model."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from random import Random

import aiohttp

from perllm.agent.addresses import ServerAddress
from perllm.agent.loading import can_load, load_model
from perllm.agent.probe import ServerProbe
from perllm.agent.slot_learning import SlotLearning
from perllm.api.node_server import MAX_SERVERS, NodeModelServer
from perllm.completions.endpoint import Endpoint
from perllm.guard import Guard, describe

MIN_PAUSE_S = 0.2
"""Between two looks at a server, however many of its requests fail."""


@dataclass(slots=True, eq=False)
class KnownServer:
    """A model server and what is known about it; one that comes back at the same address is another.

    Attributes:
        address: where it is.
        endpoint: sends requests to it.
        learning: how many requests it processes at a time, as far as that shows.
        state: what it is now; None until it was looked at.
        was_ready: whether it was ready before.
        hurry: set to look at it at once.
        loading: the models that it is being asked to load.
    """

    address: ServerAddress
    endpoint: Endpoint
    learning: SlotLearning
    state: NodeModelServer | None = None
    was_ready: bool = False
    hurry: asyncio.Event = field(default_factory=asyncio.Event)
    loading: set[str] = field(default_factory=set)

    def serves(self, model: str) -> bool:
        """Whether it can be asked for a model now."""
        return self.state is not None and self.state.ready and model in self.state.models

    @property
    def is_down(self) -> bool:
        """Whether it should be ready, since it is there, and is not."""
        is_there = self.address.is_in_pod or self.was_ready
        return is_there and self.state is not None and not self.state.ready


class ModelServers:
    """All model servers of the node, each looked at on its own, so that a broken one delays no other.

    Args:
        session: HTTP session.
        open_endpoint: returns what sends requests to an address.
        own: number of requests that PerLLM has in process, by URL of the server.
        on_change: called after every change of what is known.
        interval_s: seconds between two looks at a server.
        now: monotonic clock, in seconds.
        guard: records unexpected failures.
        rng: jitter of the interval.

    Attributes:
        synced: set once every server was looked at.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        open_endpoint: Callable[[ServerAddress], Endpoint],
        *,
        own: Counter[str],
        on_change: Callable[[], None],
        interval_s: float,
        now: Callable[[], float],
        guard: Guard,
        rng: Random,
    ) -> None:
        self.synced = asyncio.Event()
        self._session = session
        self._open_endpoint = open_endpoint
        self._own = own
        self._on_change = on_change
        self._interval_s = interval_s
        self._now = now
        self._guard = guard
        self._rng = rng
        self._known: dict[ServerAddress, KnownServer] = {}
        self._watches: dict[KnownServer, asyncio.Task[None]] = {}
        self._adopted = asyncio.Event()

    @property
    def states(self) -> tuple[NodeModelServer, ...]:
        """What is known about each server, in the order of their URLs."""
        states = (one.state for one in self._known.values())
        return tuple(sorted((one for one in states if one is not None), key=lambda state: state.url))

    @property
    def down(self) -> int:
        """Number of servers that should be ready and are not."""
        return sum(one.is_down for one in self._known.values())

    def find(self, model: str) -> list[KnownServer]:
        """Return the servers that can be asked for a model now."""
        return [one for one in self._known.values() if one.serves(model)]

    async def load(self, server: KnownServer, model: str) -> float | None:
        """Have a server load a model; return the seconds that took, None if it has it or cannot be asked.

        Further requests that come meanwhile wait for it in the server.
        """
        if model in server.loading or not can_load(server.state, model):
            return None
        server.loading.add(model)
        begun_s = self._now()
        try:
            has_loaded = await load_model(self._session, server.address, model)
        finally:
            server.loading.discard(model)
            server.hurry.set()
        return self._now() - begun_s if has_loaded else None

    def adopt(self, addresses: Iterable[ServerAddress]) -> None:
        """Look at these servers from now on, the first `MAX_SERVERS` of them, and at no others."""
        wanted: dict[str, ServerAddress] = {}
        for one in addresses:
            wanted.setdefault(one.url, one)
        first = islice(wanted.values(), MAX_SERVERS)
        self._known = {one: self._known.get(one) or self._open(one) for one in first}
        self._adopted.set()
        self._note_change()

    async def run(self) -> None:
        """Look at the servers until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    self._adopted.clear()
                    self._follow(group)
                    await self._adopted.wait()
        finally:
            self._watches.clear()

    def _open(self, address: ServerAddress) -> KnownServer:
        return KnownServer(address, self._open_endpoint(address), SlotLearning(self._now))

    def _follow(self, group: asyncio.TaskGroup) -> None:
        known = set(self._known.values())
        for server in self._watches.keys() - known:
            self._watches.pop(server).cancel()
        for server in known - self._watches.keys():
            self._watches[server] = group.create_task(self._watch(server))

    async def _watch(self, server: KnownServer) -> None:
        url = server.address.url
        probe = ServerProbe(self._session, server.address, partial(self._own.__getitem__, url), server.learning)
        while True:
            server.hurry.clear()
            try:
                state = await probe.look()
            except Exception as error:
                self._guard.note("model server", url, error)
                state = NodeModelServer(url=url, problem=describe(error))
            else:
                self._guard.clear("model server", url)
            if state != server.state:
                server.state, server.was_ready = state, server.was_ready or state.ready
                self._note_change()
            await asyncio.sleep(MIN_PAUSE_S)
            pause_s = self._interval_s * self._rng.uniform(0.9, 1.1) - MIN_PAUSE_S
            with suppress(TimeoutError):
                async with asyncio.timeout(max(pause_s, 0.0)):
                    await server.hurry.wait()

    def _note_change(self) -> None:
        if all(one.state is not None for one in self._known.values()):
            self.synced.set()
        self._on_change()
