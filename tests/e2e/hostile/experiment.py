"""Hostile input in batches, while a bystander creates tasks; a batch that breaks the operator is halved."""

import asyncio
import itertools
import math
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

from e2e.command import Say
from e2e.hostile.bystander import NAMESPACE, PLACED_WITHIN_S, Bystander, run_bystander
from e2e.hostile.cases import Case, draw_cases
from e2e.hostile.findings import HostileFindings, Problem, find_silence, find_traceback_problems
from e2e.hostile.kinds import KINDS, Kind
from e2e.hostile.rig import MERGE_PATCH, Reply, Rig
from e2e.stage import wait_until
from perllm.api import names
from perllm_lab.kubernetes.process import ProcessError
from strategies.tasks import healthy_task
from strategies.values import Object

BATCH = 24
AT_A_TIME = 8
WARM_UP_TASKS = 60
SETTLE_S = 40.0
METRICS_WITHIN_S = 20.0
RECURSION_LIMIT = 20_000


@dataclass(slots=True)
class HostileExperiment:
    """One run on a rig."""

    rig: Rig
    say: Say
    findings: HostileFindings = field(default_factory=HostileFindings)
    numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    async def run(self, objects: int, seed: int) -> HostileFindings:
        """Send about so many objects, kind by kind; return what became of them."""
        with _deep_recursion():
            await self.rig.open_namespace(NAMESPACE)
            await self._warm_up()
            async with run_bystander(self.rig.lab.client) as bystander:
                for kind in KINDS:
                    count = max(math.ceil(kind.share * objects), len(kind.oddities))
                    cases = draw_cases(kind.name, kind.oddities, count, seed)
                    start_s, known = time.monotonic(), len(self.findings.problems)
                    for batch in (cases[start : start + BATCH] for start in range(0, len(cases), BATCH)):
                        await self._try(kind, batch, bystander)
                    problems, took_s = len(self.findings.problems) - known, time.monotonic() - start_s
                    self.say(f"{kind.name}: {len(cases)} tried in {took_s:.0f} s, {problems} problems")
                self.findings.waits_s = bystander.waits_s()
        return self.findings

    async def _warm_up(self) -> None:
        """Run enough tasks that most nodes have a learned state."""
        for number in range(WARM_UP_TASKS):
            await self.rig.send("POST", names.tasks_path("default"), healthy_task(f"warm-up-{number}"))

        async def has_learned() -> bool:
            profiles = (await self.rig.send("GET", names.node_profiles_path())).content["items"]
            learned: int = sum((one.get("status") or {}).get("outcomes", 0) for one in profiles)
            return learned >= WARM_UP_TASKS

        await wait_until(has_learned, timeout_s=60)

    async def _try(self, kind: Kind, cases: Sequence[Case], bystander: Bystander) -> None:
        """Put cases into a namespace of their own, wait, judge and clean up; halve them if they break the operator."""
        namespace, log_start, start_s = f"hostile-{next(self.numbers)}", self.rig.log_size(), time.monotonic()
        await self.rig.open_namespace(namespace)
        async with bystander.paused() if kind.is_offline else nullcontext():
            accepted = await self._put(kind, cases, namespace)
        ends = await self._wait_settled(accepted, namespace) if kind.has_task else []
        broken = await self._find_breakage(namespace)
        if (late_s := max(bystander.waits_s(start_s), default=0.0)) > PLACED_WITHIN_S:
            broken.append(f"the bystander waited {late_s:.0f} s")
        await self._clear(namespace)
        if broken:
            async with bystander.paused():
                await self._restart()
        if broken and len(cases) > 1:
            for half in (cases[: len(cases) // 2], cases[len(cases) // 2 :]):
                await self._try(kind, half, bystander)
            return
        self.findings.note(cases, accepted, ends)
        self._add_problems(Problem(kind.name, cases[0].oddity, words) for words in broken)
        self._add_problems(
            Problem(kind.name, case.oddity, words) for case, end in ends if (words := find_silence(case, end))
        )
        self._add_problems(find_traceback_problems(self.rig.read_log(log_start), cases))

    def _add_problems(self, problems: Iterable[Problem]) -> None:
        for problem in problems:
            self.say(f"problem: {problem.kind}, {problem.oddity}: {problem.words}")
            self.findings.problems.append(problem)

    async def _put(self, kind: Kind, cases: Sequence[Case], namespace: str) -> list[Case]:
        """Put the cases; return those that the API server accepted."""
        if kind.is_offline:
            await self.rig.lab.operator.stop()
        gate = asyncio.Semaphore(1 if kind.one_by_one else AT_A_TIME)

        async def put(case: Case) -> Reply:
            async with gate:
                return await kind.put(self.rig, namespace, case)

        replies = await asyncio.gather(*(put(case) for case in cases))
        if kind.is_offline:
            await self._start()
        return [case for case, reply in zip(cases, replies, strict=True) if reply.is_accepted]

    async def _wait_settled(self, cases: Sequence[Case], namespace: str) -> list[tuple[Case, Object]]:
        """Wait until all tasks have ended or say why not, at most SETTLE_S; return their statuses."""
        end_s = time.monotonic() + SETTLE_S
        while True:
            statuses = [await self.rig.read_status(namespace, case.name) for case in cases]
            ends = list(zip(cases, statuses, strict=True))
            if not any(find_silence(*end) for end in ends) or time.monotonic() > end_s:
                return ends
            await asyncio.sleep(0.3)

    async def _find_breakage(self, namespace: str) -> list[str]:
        """Return how the operator fails: it ended, is not ready, does not run a healthy task, or has no metrics."""
        lab = self.rig.lab
        await self.rig.send("POST", names.tasks_path(namespace), healthy_task("healthy", namespace))

        async def works() -> bool:
            if not lab.operator.running:
                return True
            status = await self.rig.read_status(namespace, "healthy")
            return status.get("phase") == "Succeeded" and await self.rig.is_ready()

        try:
            await wait_until(works, timeout_s=SETTLE_S)
        except AssertionError:
            return ["a healthy task does not end" if await self.rig.is_ready() else "the operator is not ready"]
        if not lab.operator.running:
            return ["the operator ended"]
        return [] if await self.rig.receives_metrics(METRICS_WITHIN_S) else ["the metrics do not recover"]

    async def _clear(self, namespace: str) -> None:
        for path in (names.tasks_path(namespace), names.pods_path(namespace)):
            await self.rig.send("DELETE", path, {"propagationPolicy": "Background", "gracePeriodSeconds": 0})
        for pod in (await self.rig.send("GET", names.pods_path(namespace))).content["items"]:
            if pod["metadata"].get("finalizers"):
                path = f"{names.pods_path(namespace)}/{pod['metadata']['name']}"
                await self.rig.send("PATCH", path, {"metadata": {"finalizers": None}}, content_type=MERGE_PATCH)

    async def _restart(self) -> None:
        await self.rig.lab.operator.kill()
        await self._start()

    async def _start(self) -> None:
        try:
            await self.rig.lab.start_operator()
        except ProcessError:
            return  # _find_breakage reports it


@contextmanager
def _deep_recursion() -> Iterator[None]:
    """Allow the recursion by which nested objects are written and read."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(RECURSION_LIMIT)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)
