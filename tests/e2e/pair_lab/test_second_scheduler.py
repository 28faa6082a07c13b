"""Another scheduler places pods on the nodes of PerLLM, and does not ask for room."""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from e2e.pair import EDGE_SLOTS
from e2e.stage import Stage, condition, wait_until
from perllm.api import names
from perllm.cluster.client import Object
from perllm.doctor.tasks import ANNOTATED_PODS, check_scheduled_pods
from perllm_lab.kubernetes.process import Process
from perllm_lab.workload.manifests import pod_manifest
from perllm_lab.workload.requests import Request

MAX_RACES = 5
"""On a busy machine kube-scheduler may give up before the slots are taken, and see that they are."""

ASKS_WITHIN_S = 1.5
"""By then kube-scheduler waits for the extender; it does so for 5 s."""

FULL = f"Insufficient {names.GPU_RESOURCE}"


@dataclass(frozen=True, slots=True)
class HeedlessScheduler:
    """Stands in for HAMi, a batch scheduler or a script: it only creates bindings, whatever is on the node."""

    stage: Stage

    async def occupy(self, node: str, pods: list[str]) -> None:
        """Create pods for one GPU each that run until they are deleted, and bind them to a node."""
        await self.prepare(pods)
        await asyncio.gather(*(self.bind(name, node) for name in pods))

    async def prepare(self, pods: list[str]) -> None:
        await asyncio.gather(
            *(create_pod(self.stage, name, scheduler="heedless", output_tokens=100_000) for name in pods)
        )

    async def bind(self, name: str, node: str) -> None:
        binding = {"metadata": {"name": name}, "target": {"apiVersion": "v1", "kind": "Node", "name": node}}
        await self.stage.lab.client.post(f"{self.stage.pods_path}/{name}/binding", binding)


async def create_pod(
    stage: Stage, name: str, *, scheduler: str = names.SCHEDULER_NAME, output_tokens: int = 60, **annotations: str
) -> None:
    request = Request(name, stage.lab.scenario.model, 0.0, 200, output_tokens, 1000, 60.0)
    pod = pod_manifest(request, namespace=stage.namespace)
    said = {f"{names.GROUP}/{key}": value for key, value in annotations.items()}
    pod["metadata"]["annotations"] |= {names.MODEL_ANNOTATION: stage.lab.scenario.model, **said}
    await stage.lab.client.post(stage.pods_path, {**pod, "spec": {**pod["spec"], "schedulerName": scheduler}})


async def delete_pods(stage: Stage, pods: list[str]) -> None:
    for name in pods:
        await stage.lab.client.delete(f"{stage.pods_path}/{name}", {"gracePeriodSeconds": 0})


def node_of(stage: Stage, tier: str) -> str:
    return next(node.name for node in stage.lab.scenario.nodes() if node.tier == tier)


async def wait_message(stage: Stage, name: str, words: str) -> Object:
    """Wait until kube-scheduler says this of a pod; return the pod."""
    pod: Object = {}

    async def is_said() -> bool:
        nonlocal pod
        pod = (await stage.pods()).get(name, {})
        conditions = pod.get("status", {}).get("conditions", ())
        return any(words in one.get("message", "") for one in conditions)

    await wait_until(is_said, timeout_s=30, describe=lambda: f"{name}: {pod.get('status')}")
    return pod


async def wait_phase(stage: Stage, name: str, phase: str) -> Object:
    async def has_phase() -> bool:
        return bool((await stage.pods())[name]["status"]["phase"] == phase)

    await wait_until(has_phase, timeout_s=60, describe=lambda: f"{name} is not {phase}")
    return (await stage.pods())[name]


async def test_slots_that_it_has_taken_are_waited_for_and_the_reason_is_said(stage: Stage) -> None:
    refused = await stage.metric("perllm_pods_refused_total")
    taken = [f"taken-{number}" for number in range(EDGE_SLOTS)]
    await HeedlessScheduler(stage).occupy(node_of(stage, "edge"), taken)
    await stage.create("task", tiers=["edge"])
    await create_pod(stage, "annotated", tiers="edge")
    pod = await wait_message(stage, "annotated", FULL)
    (finding,) = check_scheduled_pods(ANNOTATED_PODS, [pod], names.SCHEDULER_NAME, float("inf"))
    assert FULL in finding.message
    task = await stage.wait_status("task", lambda status: FULL in (status.get("message") or ""))
    assert condition(task, "Scheduled")["reason"] == "Unschedulable"

    await delete_pods(stage, taken)
    done = (await stage.wait_final("task", timeout_s=60))["status"]
    assert (done["phase"], done["nodeName"], done["attempts"]) == ("Succeeded", node_of(stage, "edge"), 1)
    await wait_phase(stage, "annotated", "Succeeded")
    assert await stage.metric("perllm_pods_refused_total") == refused


async def test_of_pods_that_race_for_a_slot_the_node_refuses_the_later_one_and_the_task_is_done(stage: Stage) -> None:
    before, refused = await stage.metric("perllm_pods_refused_total"), 0
    for number in range(MAX_RACES):
        pods = [f"rush-{number}-{index}" for index in range(EDGE_SLOTS)]
        await overtake(stage, f"task-{number}", pods)
        await asyncio.sleep(1.0)
        await delete_pods(stage, pods)
        status = (await stage.wait_final(f"task-{number}", timeout_s=60))["status"]
        assert (status["phase"], status.get("failedAttempts")) == ("Succeeded", None)
        refused += status["attempts"] - 1
        if refused:
            break
    print(f"\nraces until the node refused the pod of a task: {number + 1}")
    assert refused > 0
    assert await stage.metric("perllm_pods_refused_total") == before + refused
    assert await stage.metric("perllm_ledger_drift") == 0


async def overtake(stage: Stage, task: str, pods: list[str]) -> None:
    """Have other pods take the slots of the edge between kube-scheduler's look at them and the binding of a task."""
    scheduler = HeedlessScheduler(stage)
    await scheduler.prepare(pods)

    async def has_pod() -> bool:
        return f"{task}-1" in stage.seen

    with ExitStack() as until_taken:
        with stopped(stage.lab.control_plane.processes["perllm-scheduler"]):
            await stage.create(task, tiers=["edge"])
            await wait_until(has_pod, timeout_s=20)
            until_taken.enter_context(stopped(stage.lab.operator))
        await asyncio.sleep(ASKS_WITHIN_S)
        await asyncio.gather(*(scheduler.bind(name, node_of(stage, "edge")) for name in pods))


@contextmanager
def stopped(process: Process) -> Iterator[None]:
    """Stop a process for a while, as a busy machine does: it does not answer, but its connections do not end."""
    assert process.pid is not None
    os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process.pid, signal.SIGCONT)


async def test_a_pod_of_ours_that_it_places_counts_where_it_is_and_nothing_is_learned_from_it(stage: Stage) -> None:
    flying, learned = await stage.metric("perllm_tasks_in_flight"), await stage.metric("perllm_outcomes_learned_total")
    scheduler = HeedlessScheduler(stage)
    await scheduler.occupy(node_of(stage, "edge"), [f"taken-{number}" for number in range(EDGE_SLOTS)])
    await create_pod(stage, "stolen", tiers="edge")
    await create_pod(stage, "lasting", output_tokens=100_000, tiers="edge")
    for name in ("stolen", "lasting"):
        await wait_message(stage, name, FULL)
        await scheduler.bind(name, node_of(stage, "cloud"))
    pod = await wait_phase(stage, "stolen", "Succeeded")
    assert names.DECISION_ANNOTATION not in pod["metadata"]["annotations"]

    async def is_counted() -> bool:
        return await stage.metric("perllm_tasks_in_flight") == flying + 1

    await wait_until(is_counted, timeout_s=20)
    await delete_pods(stage, ["lasting"])

    async def is_free() -> bool:
        return await stage.metric("perllm_tasks_in_flight") == flying

    await wait_until(is_free, timeout_s=20)
    assert await stage.events("Placed") == {}
    assert await stage.metric("perllm_outcomes_learned_total") == learned
