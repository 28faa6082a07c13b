"""A user who sends only healthy input: a small task in a namespace of its own every other second."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from e2e.stage import wait_until
from perllm.api.names import pods_path, tasks_path
from perllm.cluster.client import Client, Object
from perllm.cluster.informer import Informer, keep_all
from strategies.tasks import healthy_task

NAMESPACE = "bystander"
EVERY_S = 2.0
PLACED_WITHIN_S = 30.0


@dataclass(slots=True)
class Bystander:
    """When its tasks were created and got their nodes, on the monotonic clock, by name."""

    created_s: dict[str, float] = field(default_factory=dict)
    bound_s: dict[str, float] = field(default_factory=dict)
    flows: asyncio.Event = field(default_factory=asyncio.Event)

    def waits_s(self, since_s: float = 0.0) -> list[float]:
        """Return how long the tasks created since then waited for their nodes, or have been waiting."""
        now_s = time.monotonic()
        return [self.bound_s.get(name, now_s) - at_s for name, at_s in self.created_s.items() if at_s >= since_s]

    def see(self, _: Object | None, new: Object | None) -> None:
        """Record when a pod has a node."""
        if new is not None:
            self.bound_s.setdefault(new["metadata"]["ownerReferences"][0]["name"], time.monotonic())

    @asynccontextmanager
    async def paused(self) -> AsyncIterator[None]:
        """Create nothing inside, as while the operator is stopped on purpose; no task waits at its start."""

        async def nothing_waits() -> bool:
            return self.created_s.keys() <= self.bound_s.keys()

        self.flows.clear()
        with suppress(AssertionError):
            await wait_until(nothing_waits, timeout_s=PLACED_WITHIN_S)
        try:
            yield
        finally:
            self.flows.set()

    async def create_tasks(self, client: Client) -> None:
        """Create tasks until cancelled."""
        self.flows.set()
        for number in itertools.count():
            await self.flows.wait()
            name = f"task-{number}"
            self.created_s[name] = time.monotonic()
            await client.post(tasks_path(NAMESPACE), healthy_task(name, NAMESPACE))
            await asyncio.sleep(EVERY_S)


@asynccontextmanager
async def run_bystander(client: Client) -> AsyncIterator[Bystander]:
    """Create the tasks of a bystander in the background; its namespace must exist."""
    bystander = Bystander()
    informer = Informer(
        client, pods_path(NAMESPACE), keep_all, bystander.see, query={"fieldSelector": "spec.nodeName!="}
    )
    async with asyncio.TaskGroup() as group:
        work = [group.create_task(informer.run()), group.create_task(bystander.create_tasks(client))]
        yield bystander
        for one in work:
            one.cancel()
