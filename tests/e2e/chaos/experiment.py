"""Tasks of three namespaces flow while the processes that they depend on are killed and come back."""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from random import Random

import aiohttp
import numpy as np

from e2e.chaos.findings import (
    Findings,
    Recovery,
    find_learning_problems,
    find_pod_problems,
    find_task_problems,
    find_tracebacks,
)
from e2e.chaos.plan import Kill, plan_kills
from e2e.stage import Stage, open_stage, phases, wait_until
from perllm_lab.kubernetes.probe import answers
from perllm_lab.lab import Lab
from perllm_lab.replay import Replay, ReplayError
from perllm_lab.workload.requests import Request, build_requests
from perllm_lab.workload.synthetic import TraceStatistics, generate_arrivals

NAMESPACES = ("alpha", "beta", "gamma")
RATE_PER_S = 0.8
# Without arrivals nothing would be bound, and nobody could see that everything works again.
CALM_S = 15.0
RECOVERY_TIMEOUT_S = 60.0
END_TIMEOUT_S = 120.0
SETTLE_TIMEOUT_S = 90.0

Say = Callable[[str], None]


@dataclass(slots=True)
class Experiment:
    """One run on a lab."""

    lab: Lab
    seed: int
    length_s: float
    say: Say

    async def run(self) -> Findings:
        """Let tasks flow under faults for `length_s`, wait for their end, and return what was found."""
        async with AsyncExitStack() as stack:
            stages = [await stack.enter_async_context(open_stage(self.lab, name)) for name in NAMESPACES]
            replays = [stage.replay(self._requests(number)) for number, stage in enumerate(stages)]
            async with asyncio.TaskGroup() as group:
                flows = [group.create_task(_carry_through(replay)) for replay in replays]
                recoveries, problems = await self._inject(stages)
            problems += [problem for flow in flows for problem in flow.result()]
            return await self._judge(stages, replays, recoveries, problems)

    def _requests(self, number: int) -> list[Request]:
        arrivals_rng, mix_rng = (np.random.default_rng([self.seed, number, part]) for part in (1, 2))
        speed = self.lab.settings.speed
        statistics = TraceStatistics(rate_per_s=RATE_PER_S / speed)
        return build_requests(
            generate_arrivals(round(RATE_PER_S * self.length_s), arrivals_rng, statistics), self.lab.scenario, mix_rng
        )

    async def _inject(self, stages: Sequence[Stage]) -> tuple[list[Recovery], list[str]]:
        """Kill and start again until the time is over; return the faults, and what did not come back."""
        end_s = time.monotonic() + self.length_s - CALM_S
        recoveries: list[Recovery] = []
        for kill in plan_kills(Random(self.seed)):
            await asyncio.sleep(kill.pause_s)
            if time.monotonic() > end_s:
                return recoveries, []
            if dead := self._find_dead():
                return recoveries, [f"{name} ended by itself" for name in dead]
            start_s = time.monotonic()
            try:
                await self._carry_out(kill, stages)
            except AssertionError as error:
                return recoveries, [f"after a kill of {', '.join(kill.victims)}, {error}"]
            recoveries.append(Recovery(kill, time.monotonic() - start_s))
            self.say(f"{', '.join(kill.victims)} killed; everything works again after {recoveries[-1].took_s:.1f} s")
        raise AssertionError("faults never end")

    async def _carry_out(self, kill: Kill, stages: Sequence[Stage]) -> None:
        await asyncio.gather(*(self._kill(name) for name in kill.victims))
        await asyncio.sleep(kill.down_s)
        for name in kill.victims:
            await self._start(name)
        bound = _count_bound(stages)

        async def works() -> bool:
            return _count_bound(stages) > bound and await self._is_complete(stages[0])

        await wait_until(works, timeout_s=RECOVERY_TIMEOUT_S, describe=lambda: "not everything works again")

    async def _kill(self, name: str) -> None:
        if name == "operator":
            await self.lab.operator.kill()
        elif name == "prometheus":
            await self.lab.prometheus.kill()
        else:
            await self.lab.control_plane.kill_component(name)

    async def _start(self, name: str) -> None:
        if name == "operator":
            await self.lab.start_operator()
        elif name == "prometheus":
            await self.lab.prometheus.start()
        else:
            await self.lab.control_plane.start_component(name)

    async def _is_complete(self, stage: Stage) -> bool:
        """Whether the operator is ready and has its metrics."""
        try:
            return await answers(f"{self.lab.health_url}/readyz") and await stage.metric("perllm_telemetry_up") == 1
        except (aiohttp.ClientError, TimeoutError):
            return False

    def _find_dead(self) -> list[str]:
        lab = self.lab
        processes = {**lab.control_plane.processes, "operator": lab.operator, "nodes": lab.nodes}
        return [name for name, process in processes.items() if not process.running]

    async def _judge(
        self, stages: Sequence[Stage], replays: Sequence[Replay], recoveries: Sequence[Recovery], problems: list[str]
    ) -> Findings:
        for stage, replay in zip(stages, replays, strict=True):
            if not await replay.wait_measured(timeout_s=SETTLE_TIMEOUT_S):
                problems.append(f"the energy of some tasks of {stage.namespace} stays open")
        tasks = {stage.namespace: await stage.tasks() for stage in stages}
        succeeded = [
            task for many in tasks.values() for task in many.values() if task["status"]["phase"] == "Succeeded"
        ]
        await self._wait_learned(stages[0], len(succeeded))
        for stage in stages:
            problems += find_task_problems(tasks[stage.namespace].values(), stage.completed_runs())
            problems += find_pod_problems((await stage.pods()).values(), tasks[stage.namespace])
        where = Counter(task["status"]["nodeName"] for task in succeeded)
        problems += find_learning_problems(await stages[0].profiles(), where)
        problems += [f"{name} ended by itself" for name in self._find_dead()]
        problems += await self._find_drift(stages[0])
        problems += find_tracebacks(self.lab.operator_log.read_text(encoding="utf-8", errors="replace"))
        return Findings(
            tuple(recoveries),
            sum((phases(many) for many in tasks.values()), Counter()),
            {name: count for stage in stages for name, count in stage.completed_runs().items() if count > 1},
            await stages[0].learned(),
            tuple(problems),
        )

    async def _wait_learned(self, stage: Stage, count: int) -> None:
        """Wait until everything is learned, or nothing more is."""
        before = -1
        for _ in itertools.repeat(None, 10):
            learned = await stage.learned()
            if learned in (before, count):
                return
            before = learned
            await asyncio.sleep(5.0)

    async def _find_drift(self, stage: Stage) -> list[str]:
        """Return which of the operator's counts of unfinished work are not 0 although nothing is unfinished."""
        gauges = {name: await stage.metric(name) for name in ("perllm_tasks_in_flight", "perllm_tasks_waiting")}
        return [f"{name} is {value:g} after the last task" for name, value in gauges.items() if value]


async def _carry_through(replay: Replay) -> list[str]:
    """Send everything and wait for its end; return what went wrong."""
    try:
        await replay.run(timeout_s=END_TIMEOUT_S)
    except ReplayError as error:
        return [str(error)]
    return []


def _count_bound(stages: Sequence[Stage]) -> int:
    return sum(bool(states[-1]["spec"].get("nodeName")) for stage in stages for states in stage.seen.values())
