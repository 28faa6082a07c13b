"""Tasks of three namespaces arrive while faults hit everything that they depend on; then all is judged."""

import asyncio
import time
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from e2e.audit import Change, read_all
from e2e.chaos.evidence import Run, Story, read_runs, read_stories
from e2e.chaos.findings import ChunkFindings
from e2e.chaos.injector import Injected, Injector
from e2e.chaos.invariants import (
    Span,
    count_outcomes,
    find_contradictions,
    find_drift,
    find_learning_errors,
    find_leftovers,
    find_losses,
    find_repetitions,
)
from e2e.chaos.outage_log import find_logging_errors
from e2e.chaos.plan import BLINDING, BLINDING_AGENTS, Fault
from e2e.chaos.processes import Processes
from e2e.chaos.reports import Report, list_disturbances, read_reports, read_requests
from e2e.chaos.rig import ChaosRig
from e2e.chaos.served_invariants import (
    count_wasted,
    find_late_releases,
    find_repeated_outages,
    find_report_errors,
    find_unfounded_failures,
    measure_releases,
)
from e2e.chaos.workload import Order, create_tasks
from e2e.command import Say
from e2e.stage import is_settled, list_tracebacks, wait_until
from perllm.api.task_status import RunsAs
from perllm.cluster.client import ApiError, Object

END_TIMEOUT_S = 150.0
SETTLED_POLL_S = 1.0
LEAVING = 2
"""Place of the pods that are to be released or deleted in what is counted."""

# Longer than a write of the learned state takes, and than it takes until a pod whose task is gone is deleted.
QUIET_S = 8.0
QUIET_TIMEOUT_S = 90.0
# The longest pause of the operator between two attempts to reach the API server.
RETRY_S = 15.0
GAUGES = ("perllm_tasks_in_flight", "perllm_tasks_waiting", "perllm_ledger_drift")


@dataclass(slots=True)
class ChaosExperiment:
    """One run on a rig.

    Attributes:
        rig: started, without tasks.
        faults: what to inject, by time.
        orders: the tasks, by time.
        say: is given a line about each fault.
        problems: one line per defect.
    """

    rig: ChaosRig
    faults: Sequence[Fault]
    orders: Sequence[Order]
    say: Say
    problems: list[str] = field(default_factory=list)

    async def run(self, chunk: int = 0) -> ChunkFindings:
        """Inject the faults while the tasks arrive, wait until all is over, and judge."""
        start_s, processes = time.monotonic(), Processes(self.rig.lab, self.rig.agents)
        injector = Injector(self.rig, processes, self.say)
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(processes.watch())
            creating = group.create_task(create_tasks(self.rig.lab.client, self.orders, start_s))
            await injector.inject_all(self.faults)
            await creating
            await self._wait_until_over()
            watching.cancel()
        self.problems += [*injector.problems, *processes.deaths]
        return await self._judge(chunk, injector, processes, time.monotonic() - start_s)

    async def _wait_until_over(self) -> None:
        """Wait until every task has ended and is settled, and then until the learned state no longer grows."""
        with suppress(AssertionError):
            await wait_until(self._are_all_settled, timeout_s=END_TIMEOUT_S, poll_s=SETTLED_POLL_S)
        before, deadline_s = None, time.monotonic() + QUIET_TIMEOUT_S
        while time.monotonic() < deadline_s:
            now = await self._count_unfinished()
            if now == before and not now[LEAVING]:
                return
            before = now
            await asyncio.sleep(QUIET_S)

    async def _are_all_settled(self) -> bool:
        with suppress(ApiError):
            tasks = await self._list_tasks()
            return all(is_settled(task.get("status") or {}) for task in tasks.values())
        return False

    async def _count_unfinished(self) -> tuple[int, ...]:
        """Return what changes as long as the operator has something to do."""
        tasks, pods = await self._list_tasks(), await self._list_pods()
        owners = {task["metadata"]["uid"] for task in tasks.values()}
        leaving = sum(_is_leaving(pod["metadata"], owners) for pod in pods)
        return len(tasks), len(pods), leaving, await self.rig.stage.learned()

    async def _judge(self, chunk: int, injector: Injector, processes: Processes, took_s: float) -> ChunkFindings:
        changes, tasks, pods = read_all(self.rig.audit), await self._list_tasks(), await self._list_pods()
        reports, profiles = read_reports(changes), await self.rig.stage.profiles()
        runs = self._read_runs(changes, reports, injector)
        stories = read_stories([order.key for order in self.orders], tasks, runs, changes)
        self.problems += [
            *find_losses(stories),
            *find_repetitions(stories),
            *find_contradictions(stories, _find_blind_spans(injector.injected, BLINDING)),
            *find_learning_errors(stories, profiles, changes, processes.absences),
            *find_leftovers(pods, tasks),
            *find_drift({name: await self.rig.stage.metric(name) for name in GAUGES}),
            *self._find_logged_problems(injector),
        ]
        blind = _find_blind_spans(injector.injected, BLINDING_AGENTS)
        if self.rig.runs_as is RunsAs.REQUEST:
            self.problems += self._find_served_problems(stories, reports, changes, blind)
        return ChunkFindings(
            chunk=chunk,
            faults=dict(Counter(one.fault.kind.value for one in injector.injected)),
            skipped=len(injector.skipped),
            phases=dict(Counter(str(story.status.get("phase")) for story in stories)),
            repeated=sum(len(story.runs) > 1 for story in stories),
            successes=sum(len(story.successes) for story in stories),
            learned=sum(map(count_outcomes, profiles.values())),
            took_s=round(took_s, 1),
            memory_mib=round(read_memory_mib(self.rig.lab.operator.pid or 0), 1),
            problems=tuple(self.problems),
            wasted=count_wasted(stories),
            freed_s=round(max(measure_releases(stories, changes, blind), default=0.0), 3),
        )

    def _read_runs(self, changes: Sequence[Change], reports: Sequence[Report], injector: Injector) -> list[Run]:
        truth = self.rig.lab.read_truth()
        if self.rig.runs_as is RunsAs.POD:
            return read_runs(truth, changes)
        nodes = (node.name for node in self.rig.lab.scenario.nodes())
        return read_requests(truth, reports, list_disturbances(injector.injected, changes, nodes))

    def _find_served_problems(
        self, stories: Sequence[Story], reports: Sequence[Report], changes: Sequence[Change], blind: Sequence[Span]
    ) -> list[str]:
        log = self.rig.lab.agents.log_file.read_text(encoding="utf-8", errors="replace").splitlines()
        return [
            *find_report_errors(stories, reports),
            *find_unfounded_failures(stories),
            *find_late_releases(stories, changes, blind),
            *find_repeated_outages(log, len(self.rig.lab.scenario.nodes()), len(blind)),
            *(f"agents.log: {line[-400:]}" for line in list_tracebacks(log)),
        ]

    def _find_logged_problems(self, injector: Injector) -> list[str]:
        log = self.rig.lab.operator_log.read_text(encoding="utf-8", errors="replace")
        disturbances = sum(one.fault.target in BLINDING for one in injector.injected)
        return [
            *(f"operator.log: {line[-400:]}" for line in list_tracebacks(log.splitlines())),
            *find_logging_errors(self.rig.stage.read_log(), disturbances),
        ]

    async def _list_tasks(self) -> dict[str, Object]:
        listed = {name: await stage.tasks() for name, stage in self.rig.stages.items()}
        return {f"{name}/{key}": task for name, tasks in listed.items() for key, task in tasks.items()}

    async def _list_pods(self) -> list[Object]:
        return [pod for stage in self.rig.stages.values() for pod in (await stage.pods()).values()]


def _find_blind_spans(injected: Iterable[Injected], targets: Collection[str]) -> list[Span]:
    """Return from when to when faults of these targets kept others from seeing the cluster, with pauses for retries."""
    return [(one.begun_s, one.over_s + RETRY_S) for one in injected if one.fault.target in targets]


def read_memory_mib(pid: int) -> float:
    """Return the resident set of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:"))


def _is_leaving(metadata: Object, owners: set[str]) -> bool:
    """Whether a pod is to be released, or deleted: Kubernetes' own garbage collector takes its time after an outage."""
    is_orphan = metadata["ownerReferences"][0]["uid"] not in owners
    return is_orphan or "deletionTimestamp" in metadata or bool(metadata.get("finalizers"))
