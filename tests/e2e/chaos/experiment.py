"""Tasks of three namespaces arrive while the processes that they depend on are killed and restarted."""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from random import Random

import aiohttp

from e2e.chaos.findings import ChaosFindings, Recovery, find_learning_problems, find_pod_problems, find_task_problems
from e2e.chaos.plan import Kill, plan_kills
from e2e.command import Say
from e2e.requests import synthetic_requests
from e2e.stage import Stage, list_tracebacks, open_stage, phases, wait_until
from perllm_lab.kubernetes.probe import answers
from perllm_lab.lab import Lab
from perllm_lab.trace_replay import TraceReplay, TraceReplayError

NAMESPACES = ("alpha", "beta", "gamma")
RATE_PER_S = 0.8
# No kills at the end: a new binding is what shows that everything works again.
QUIET_S = 15.0
RECOVERY_TIMEOUT_S = 60.0
END_TIMEOUT_S = 120.0
SETTLE_TIMEOUT_S = 90.0


@dataclass(slots=True)
class ChaosExperiment:
    """One run on a lab."""

    lab: Lab
    seed: int
    length_s: float
    say: Say

    async def run(self) -> ChaosFindings:
        """Let tasks arrive for `length_s` while processes are killed, wait for their end, and return what was found."""
        async with AsyncExitStack() as stack:
            stages = [await stack.enter_async_context(open_stage(self.lab, name)) for name in NAMESPACES]
            replays = [self._replay(stage, number) for number, stage in enumerate(stages)]
            async with asyncio.TaskGroup() as group:
                runs = [group.create_task(_run_to_end(replay)) for replay in replays]
                recoveries, problems = await self._inject_kills(stages)
            problems += [problem for run in runs for problem in run.result()]
            return await self._judge(stages, replays, recoveries, problems)

    def _replay(self, stage: Stage, number: int) -> TraceReplay:
        count, rate_per_s = round(RATE_PER_S * self.length_s), RATE_PER_S / self.lab.settings.speed
        seed = [self.seed, number]
        return stage.replay(synthetic_requests(self.lab.scenario, count, rate_per_s=rate_per_s, seed=seed))

    async def _inject_kills(self, stages: Sequence[Stage]) -> tuple[list[Recovery], list[str]]:
        """Kill and restart until the time is over; return the recoveries, and what did not recover."""
        end_s = time.monotonic() + self.length_s - QUIET_S
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
        raise AssertionError("the plan of kills has no end")

    async def _carry_out(self, kill: Kill, stages: Sequence[Stage]) -> None:
        await asyncio.gather(*(self._kill(name) for name in kill.victims))
        await asyncio.sleep(kill.down_s)
        for name in kill.victims:
            await self._start(name)

        def count_bound() -> int:
            return sum(stage.count_bound() for stage in stages)

        bound = count_bound()

        async def works() -> bool:
            return count_bound() > bound and await self._is_complete(stages[0])

        await wait_until(works, timeout_s=RECOVERY_TIMEOUT_S, describe=lambda: "something does not work again")

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
        """Whether the operator is ready and receives metrics."""
        try:
            return await answers(f"{self.lab.health_url}/readyz") and await stage.metric("perllm_telemetry_up") == 1
        except (aiohttp.ClientError, TimeoutError):
            return False

    def _find_dead(self) -> list[str]:
        lab = self.lab
        processes = {**lab.control_plane.processes, "operator": lab.operator, "nodes": lab.nodes}
        return [name for name, process in processes.items() if not process.running]

    async def _judge(
        self,
        stages: Sequence[Stage],
        replays: Sequence[TraceReplay],
        recoveries: Sequence[Recovery],
        problems: list[str],
    ) -> ChaosFindings:
        for stage, replay in zip(stages, replays, strict=True):
            if not await replay.wait_measured(timeout_s=SETTLE_TIMEOUT_S):
                problems.append(f"the energy of some tasks of {stage.namespace} is not settled")
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
        log = self.lab.operator_log.read_text(encoding="utf-8", errors="replace")
        problems += [f"operator.log: {line[-300:]}" for line in list_tracebacks(log.splitlines())]
        return ChaosFindings(
            tuple(recoveries),
            sum((phases(many) for many in tasks.values()), Counter()),
            {name: count for stage in stages for name, count in stage.completed_runs().items() if count > 1},
            await stages[0].learned(),
            tuple(problems),
        )

    async def _wait_learned(self, stage: Stage, count: int) -> None:
        """Wait until everything is learned, or the count no longer grows."""
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


async def _run_to_end(replay: TraceReplay) -> list[str]:
    """Send all requests and wait until their tasks have ended; return what went wrong."""
    try:
        await replay.run(timeout_s=END_TIMEOUT_S)
    except TraceReplayError as error:
        return [str(error)]
    return []
