"""Carries out faults, each at its time, and undoes them; they may overlap."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from random import Random

import aiohttp

from e2e.chaos.hand import Hand, NothingToHitError
from e2e.chaos.plan import AGENT, AGENT_NODE, BY_HAND, ON_PROCESSES, ON_SERVERS, Fault, FaultKind
from e2e.chaos.processes import Processes
from e2e.chaos.rig import NAMESPACES, ChaosRig
from e2e.command import Say
from e2e.stage import wait_until
from perllm.cluster.client import ApiError
from perllm_lab.kubernetes.process import ProcessError
from perllm_lab.nodes.registration import NODES

SLOW_S = 0.25
MAX_AHEAD_S = 120.0
BOOT_S = 60.0
PATIENCE_S = 10.0


@dataclass(frozen=True, slots=True)
class Injected:
    """A fault that was carried out.

    Attributes:
        fault: as planned.
        begun_s: Unix time at which it began.
        over_s: Unix time at which it was undone.
        hit: what it was done to.
    """

    fault: Fault
    begun_s: float
    over_s: float
    hit: str


@dataclass(slots=True)
class Injector:
    """Disturbs one rig.

    Attributes:
        injected: what was done.
        skipped: the faults for which there was nothing to hit.
        problems: what could not be done or undone.
    """

    rig: ChaosRig
    processes: Processes
    say: Say
    injected: list[Injected] = field(default_factory=list)
    skipped: list[Fault] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    locks: dict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))

    async def inject_all(self, faults: Iterable[Fault]) -> None:
        """Carry out faults, each at its time; returns once all are undone."""
        async with asyncio.TaskGroup() as group:
            for fault in faults:
                await asyncio.sleep(fault.pause_s)
                group.create_task(self._inject(fault))

    async def _inject(self, fault: Fault) -> None:
        begun_s = time.time()
        try:
            hit = await self._carry_out(fault)
        except NothingToHitError:
            self.skipped.append(fault)
        except (ApiError, ProcessError, AssertionError, aiohttp.ClientError) as error:
            self.problems.append(f"{fault.kind} {fault.target}: {error}")
        else:
            over_s = time.time()
            self.injected.append(Injected(fault, begun_s, over_s, hit))
            self.say(
                f"{datetime.fromtimestamp(begun_s):%H:%M:%S} {fault.kind} {hit}; over after {over_s - begun_s:.1f} s"
            )

    async def _carry_out(self, fault: Fault) -> str:
        if fault.kind in ON_PROCESSES:
            await self.processes.strike(fault.kind, fault.target, fault.lasts_s)
        elif fault.kind in BY_HAND:
            return await Hand(self.rig.lab.client, NAMESPACES).act(fault)
        elif fault.kind in ON_SERVERS:
            return await self._disturb_servers(fault)
        else:
            async with self.locks[fault.target]:
                await (self._disturb_link(fault) if fault.target in self.rig.links else self._disturb_node(fault))
        return fault.target

    async def _disturb_link(self, fault: Fault) -> None:
        link = self.rig.links[fault.target]
        if fault.kind is FaultKind.SILENCE:
            link.silence()
            return
        if fault.kind in (FaultKind.CUT, FaultKind.ISOLATION):
            link.cut()
        elif fault.kind is FaultKind.STALL:
            link.stall()
        else:
            link.delay_s = SLOW_S
        await asyncio.sleep(fault.lasts_s)
        link.restore()

    async def _disturb_servers(self, fault: Fault) -> str:
        before, after, nodes = "server/stop", "server/start", [fault.target]
        if fault.kind is FaultKind.REFUSALS:
            names = [node.name for node in self.rig.lab.scenario.nodes()]
            before, after, nodes = "server/max-waiting/0", "server/max-waiting/any", _halve(names, fault.draw)
        await asyncio.gather(*(self._ask(node, before) for node in nodes))
        await asyncio.sleep(fault.lasts_s)
        await asyncio.gather(*(self._ask(node, after) for node in nodes))
        return ", ".join(nodes)

    async def _disturb_node(self, fault: Fault) -> None:
        node = fault.target
        if fault.kind is FaultKind.WRONG_CLOCK:
            await self._ask(node, f"clock/{MAX_AHEAD_S * (2.0 * fault.draw - 1.0):.1f}")
            await asyncio.sleep(fault.lasts_s)
            await self._ask(node, "clock/0")
            return
        await (self._ask(node, "cut-power") if fault.kind is FaultKind.POWER_CUT else self._delete_node(node))
        if node == AGENT_NODE and self.processes.agents:
            await self.processes.strike(FaultKind.KILL, AGENT, fault.lasts_s)
        else:
            await asyncio.sleep(fault.lasts_s)

        async def boots() -> bool:
            with suppress(AssertionError, aiohttp.ClientError):
                await self._ask(node, "boot")
                return True
            return False

        await wait_until(boots, timeout_s=BOOT_S, describe=lambda: f"{node} does not boot")

    async def _delete_node(self, node: str) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            try:
                await self.rig.lab.client.delete(f"{NODES}/{node}")
                return
            except ApiError as error:
                if not error.is_transient or time.monotonic() > deadline_s:
                    raise NothingToHitError(str(error)) from error
            await asyncio.sleep(1.0)

    async def _ask(self, node: str, action: str) -> None:
        await self.rig.stage.switch_node(node, action)


def _halve(names: list[str], draw: float) -> list[str]:
    return Random(draw).sample(names, len(names) // 2)
