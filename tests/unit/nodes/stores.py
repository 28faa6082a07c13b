"""Stores of learned state for tests, and the writing of what they hold."""

import asyncio
import time
from collections.abc import Callable
from random import Random
from typing import Any

from perllm.cluster.node import Node
from perllm.cluster.outages import Outages
from perllm.cluster.writes import WriteQueue
from perllm.guard import Guard
from perllm.learning.learner import Learner
from perllm.learning.node_state import NodeState
from perllm.learning.restoration import restore
from perllm.nodes.profile_store import ProfileStore

DRAIN_S = 30.0


class Saved(ProfileStore):
    """A store with a queue of writes of its own."""

    def __init__(self, client: Any, learner: Learner, node_of: Callable[[str], Node | None], **fields: Any) -> None:
        rng, outages = Random(0), Outages(asyncio.get_running_loop().time)
        guard = Guard(lambda _: None, rng)
        self.writes = WriteQueue(guard, outages, rng)
        policy, unix_now = fields.get("policy", "cs-ucb-table"), fields.get("unix_now", time.time)

        def restore_node(name: str, state: NodeState) -> int:
            return restore(learner, name, state, policy, unix_now())

        parts = {"policy": policy, "restore": restore_node, "guard": guard, "outages": outages, "rng": rng, **fields}
        super().__init__(client, self.writes, learner, node_of=node_of, **parts)

    async def flush(self) -> None:
        """Write what has changed."""
        self.save()
        running = asyncio.create_task(self.writes.run())
        async with asyncio.timeout(DRAIN_S):
            await self.writes.drain()
        running.cancel()
