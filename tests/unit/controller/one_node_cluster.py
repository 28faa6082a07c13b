"""A controller at work on one node: objects come in, requests to the API server go out."""

import asyncio
from random import Random
from typing import Any

from prometheus_client import CollectorRegistry

from perllm.api import names
from perllm.api.quantities import parse_duration_s
from perllm.cluster.events import EventRecorder
from perllm.cluster.pod import read_pod
from perllm.controller.announcer import Announcer
from perllm.controller.assembly import ControllerContext, TaskControl
from perllm.controller.end_metrics import EndMetrics
from perllm.controller.settings import ControllerSettings
from perllm.controller.suspensions import Suspensions
from perllm.energy.bill import BillMetrics
from perllm.energy.foreign import ForeignLoad
from perllm.energy.history import EnergyHistory
from perllm.energy.meters import Meter
from perllm.energy.settlement import SETTLING_S
from perllm.guard import Guard
from perllm.metrics import OperatorMetrics
from perllm.policy.contextual import CsUcb
from unit.cluster.fake_api import FakeApiServer
from unit.cluster.queues import make_writes
from unit.controller.samples import make_own_decision, task_object
from unit.energy.settlements import make_settlement
from unit.placement.cluster_of import make_node
from unit.scheduling.schedulers import make_scheduler

PODS = "/api/v1/namespaces/lab/pods"
START_S = 1000.0


class Cluster:
    """An API server with tasks, a controller that sees every change at once, and node n with two slots.

    Time and the controller start with the first task: virtual time begins in the test itself, not in its fixtures.

    Attributes:
        unlisted: namespaces whose tasks cannot be listed.
        pods_unlisted: namespaces whose pods could not be listed yet.
        sees_pods: whether pods can be watched.
        outdated: namespaces that were not watched until now, so that what pods and agents report may not be known yet.
    """

    settings = ControllerSettings()

    def __init__(self, api: FakeApiServer | None = None, begun_s: float | None = None) -> None:
        self.api = api or FakeApiServer()
        self.running: asyncio.Task[None] | None = None
        self.unlisted: set[str] = set()
        self.pods_unlisted: set[str] = set()
        self.sees_pods = True
        self.outdated: set[str] = set()
        self.begun_s: float | None = START_S
        self._wake = asyncio.Event()
        made = make_scheduler(make_node("n", slots=2), now_s=self.now_s, policy=CsUcb(), notify=self._wake.set)
        self.scheduler, self.parts = made.scheduler, made.parts
        self.registry = CollectorRegistry()
        metrics = OperatorMetrics(self.registry)
        meter = Meter.build("dcgm", "gpu", 2000.0, length_s=900.0)
        meter.counters.merge("n", "gpu", [(time_s, 100.0 * time_s) for time_s in range(1000, 1030)], 1030.0)
        energy = EnergyHistory([meter], absent_after_s=60.0)
        foreign = ForeignLoad(900.0)
        settlement = self.settlement = make_settlement(energy, self.now_s, foreign)
        client: Any = self.api
        self.writes = make_writes()
        self.guard = Guard(lambda kind: metrics.process.faults.labels(kind).inc(), Random(0))
        events = EventRecorder(client, self.writes, instance="host", unix_now=self.now_s)
        context = ControllerContext(
            client=client,
            writes=self.writes,
            settlement=settlement,
            announcer=Announcer(events, metrics, EndMetrics(self.registry), BillMetrics(self.registry)),
            metrics=metrics,
            guard=self.guard,
            now_s=self.now_s,
            unix_now=self.now_s,
            show_circuit=lambda *_: None,
            wake=self._wake,
            has_tasks=lambda namespace: namespace not in self.unlisted,
            has_pods=lambda namespace: namespace not in self.pods_unlisted,
            sees_pods=lambda: self.sees_pods,
            is_current=lambda namespace: namespace not in self.outdated,
            suspensions=self.build_suspensions(),
        )
        self.control = TaskControl(self.scheduler, self.parts, context, self.settings)
        self.controller = self.control.controller
        self.begun_s = begun_s

    def build_suspensions(self) -> Suspensions:
        return Suspensions()

    def now_s(self) -> float:
        loop_s = asyncio.get_running_loop().time()
        if self.begun_s is None:
            self.begun_s = loop_s
        return START_S + loop_s - self.begun_s

    def start(self) -> None:
        if self.running is None:
            self.running = asyncio.create_task(self._work())

    async def _work(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._dispatch())
            group.create_task(self.writes.run())
            group.create_task(self.control.releases.run())
            group.create_task(self.control.drift.run())
            group.create_task(self.control.retirement.run())
            group.create_task(self._report_releases())

    async def _dispatch(self) -> None:
        expiry = asyncio.create_task(self._expire())
        try:
            await self.control.dispatcher.run()
        finally:
            expiry.cancel()

    async def _expire(self) -> None:
        while True:
            await asyncio.sleep(0.5)
            self.scheduler.refresh()

    async def _report_releases(self) -> None:
        async for event in self.api.watch(PODS, {"resourceVersion": "0"}):
            item = self.api.read(f"{PODS}/{event['object']['metadata']['name']}")
            if event["type"] == "MODIFIED" and item == event["object"] and not item["metadata"].get("finalizers"):
                self.controller.on_pod(None, read_pod(item))

    def stop(self) -> None:
        if self.running is not None:
            self.running.cancel()

    def create(self, name: str = "t", **fields: Any) -> None:
        self.start()
        item = self.api.store(names.task_path("lab", name), **task_object(name, **fields))
        self.controller.on_task(item, deleted=False)

    def delete(self, name: str = "t") -> None:
        item = self.api.read(names.task_path("lab", name))
        assert item is not None
        self.api.remove(names.task_path("lab", name))
        self.controller.on_task(item, deleted=True)

    def pod(self, name: str = "t-1", **fields: Any) -> None:
        """Change a pod, or report it for the first time."""
        self.controller.on_pod(None, read_pod(self.api.store(f"{PODS}/{name}", **fields)))

    def see_pod(self, name: str = "t-1") -> None:
        """Report a pod as it is."""
        item = self.api.read(f"{PODS}/{name}")
        assert item is not None
        self.controller.on_pod(None, read_pod(item))

    def lose_pod(self, name: str = "t-1") -> None:
        item = self.api.read(f"{PODS}/{name}")
        assert item is not None
        self.api.remove(f"{PODS}/{name}")
        self.controller.on_pod(read_pod(item), None)

    def report_gone(self, name: str, containers: list[Any], statuses: list[Any]) -> None:
        """Report a pod that the API server has deleted, with its last state."""
        metadata = {
            "name": name,
            "namespace": "lab",
            "uid": f"uid-{name}",
            "labels": {names.ATTEMPT_LABEL: "1"},
            "annotations": {names.CONTAINERS_ANNOTATION: "llm"},
            "deletionTimestamp": "1970-01-01T00:17:20Z",
            "ownerReferences": [{"kind": names.TASK_KIND, "name": "t", "uid": "uid-t"}],
        }
        status = {"phase": "Failed", "containerStatuses": statuses}
        spec = {"nodeName": "n", "containers": containers}
        self.controller.on_pod(read_pod({"metadata": metadata, "spec": spec, "status": status}), None)

    def bind(self, name: str = "t-1", **record: Any) -> None:
        task = self.api.read(names.task_path("lab", name.rpartition("-")[0]))
        due_s = START_S + parse_duration_s(task["spec"]["deadline"]) if task else START_S
        decided_s = self.now_s()
        decision = make_own_decision(decided_s=decided_s, time_left_s=due_s - decided_s, **record)
        annotations = {names.DECISION_ANNOTATION: decision.to_record()}
        self.pod(name, metadata={"annotations": annotations}, spec={"nodeName": "n"})

    def finish(self, name: str = "t-1", exit_code: int = 0) -> None:
        ended = {"exitCode": exit_code, "startedAt": "1970-01-01T00:16:42Z", "finishedAt": "1970-01-01T00:16:50Z"}
        statuses = [{"name": "llm", "state": {"terminated": ended}}]
        self.pod(name, status={"phase": "Failed" if exit_code else "Succeeded", "containerStatuses": statuses})

    def status(self, name: str = "t") -> dict[str, Any]:
        item = self.api.read(names.task_path("lab", name))
        return (item or {}).get("status") or {}

    def condition(self, kind: str, name: str = "t") -> dict[str, Any]:
        found: dict[str, Any] = next(one for one in self.status(name)["conditions"] if one["type"] == kind)
        return found

    @property
    def pods(self) -> list[str]:
        return [body["metadata"]["name"] for path, body in self.api.calls_of("POST") if path == PODS]

    def metric(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0


def container(state: dict[str, Any], name: str = "llm") -> dict[str, Any]:
    return {"name": name, "state": state}


async def run_through(cluster: Cluster) -> None:
    """Let task t run on node n from 1002 s to 1010 s."""
    cluster.create()
    await asyncio.sleep(2)
    cluster.pod(phase="Pending")
    cluster.bind()
    await asyncio.sleep(8.5)
    cluster.finish()
    await asyncio.sleep(SETTLING_S + 1)
