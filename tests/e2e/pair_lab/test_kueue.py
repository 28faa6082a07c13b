"""Tasks under the quota of a real Kueue: its queues, its preemption and its flavors decide which of them may run."""

import asyncio
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest_asyncio

from e2e.annotated import build_template, wait_event
from e2e.kueue_lab import KueueLab
from e2e.stage import Stage, condition, wait_until
from perllm.api import names
from perllm.cluster.client import Object
from perllm.kueue.workload import (
    API_VERSION,
    PRIORITY_CLASS_LABEL,
    QUEUE_LABEL,
    priority_classes_path,
    workloads_path,
)
from perllm_lab.workload.manifests import task_manifest
from perllm_lab.workload.requests import Request

EXAMPLES = Path(__file__).parents[3] / "examples"
URGENT = "urgent"
LONG = 450
"""Tokens of what runs while something else is seen to wait, or to preempt it: nine seconds."""

SECOND_S = 1.1
"""Kueue orders what has the same priority by times of creation, which are in whole seconds."""


@pytest_asyncio.fixture(scope="module", autouse=True, loop_scope="session")
async def urgent(lab: KueueLab) -> None:
    """A class of priority above that of other tasks."""
    urgent = {"apiVersion": API_VERSION, "kind": "WorkloadPriorityClass", "metadata": {"name": URGENT}}
    await lab.client.post(priority_classes_path(), urgent | {"value": 10_000})


async def test_three_tasks_with_quota_for_one_run_one_after_the_other(stage: Stage, queue: str) -> None:
    waited = []
    await create(stage, "first", queue, output_tokens=LONG)
    await stage.wait_status("first", lambda status: status.get("nodeName") is not None)
    for name in ("second", "third"):
        await create(stage, name, queue)
        waited.append(await stage.wait_status(name, lacks_quota))
        await asyncio.sleep(SECOND_S)
    tasks = await stage.wait_all_final(["first", "second", "third"], timeout_s=120.0)

    runs = [span(tasks[name]) for name in ("first", "second", "third")]
    assert [task["status"]["phase"] for task in tasks.values()] == ["Succeeded"] * 3
    assert all(before[1] <= after[0] for before, after in pairwise(runs)), runs
    assert all(is_waiting_for_quota(task["status"]) for task in waited)
    assert {task["status"]["tier"] for task in tasks.values()} == {"edge"}
    await wait_until(lambda: all_finished(stage, 3), timeout_s=20.0)


async def test_a_task_that_is_preempted_runs_again_and_is_learned_once(stage: Stage, queue: str) -> None:
    learned = await stage.learned()
    await create(stage, "low", queue, output_tokens=LONG)
    await stage.wait_status("low", lambda status: status.get("phase") == "Running")
    await create(stage, "high", queue, output_tokens=50, priority_class=URGENT)
    stopped = await stage.wait_status("low", is_waiting_for_quota)
    await stage.wait_all_settled(["low", "high"], timeout_s=120.0)
    low, high = [await stage.wait_final(name) for name in ("low", "high")]

    assert "reempted" in stopped["status"]["message"]
    assert span(high)[1] <= span(low)[0]
    assert (low["status"]["phase"], low["status"]["attempts"]) == ("Succeeded", 2)
    assert low["status"]["stoppedAttempts"] == [1]
    assert "failedAttempts" not in low["status"]
    assert stage.completed_runs() == {"low": 1, "high": 1}
    await stage.wait_learned(learned + 2, timeout_s=30.0)
    assert await stage.learned() == learned + 2


async def test_an_annotated_job_shares_the_queue_with_tasks(stage: Stage, queue: str) -> None:
    await create(stage, "before", queue, output_tokens=LONG)
    await stage.wait_status("before", lambda status: status.get("phase") == "Running")
    await create_job(stage, "job", queue)
    await wait_until(lambda: has_workloads(stage, 2), timeout_s=30.0)
    assert (await read_job(stage, "job"))["spec"]["suspend"]
    await asyncio.sleep(SECOND_S)
    await create(stage, "after", queue)
    tasks = await stage.wait_all_final(["before", "after"], timeout_s=120.0)
    job = await read_job(stage, "job")

    begun, ended = (parse(job["status"][field]) for field in ("startTime", "completionTime"))
    assert span(tasks["before"])[1] <= begun + 1.0
    assert ended <= span(tasks["after"])[0] + 1.0
    for reason in ("Placed", "Completed"):
        assert await wait_event(stage, "job-", reason)


async def test_an_annotated_job_that_a_task_preempts_runs_again(stage: Stage, queue: str) -> None:
    await create_job(stage, "low", queue, output_tokens=LONG)
    await wait_until(lambda: has_running_pod(stage, "low"), timeout_s=60.0)
    await create(stage, "high", queue, priority_class=URGENT)
    high = await stage.wait_final("high", timeout_s=60.0)
    await wait_event(stage, "low-", "Completed", timeout_s=90.0)
    (stopped, again) = (states[-1] for name, states in stage.seen.items() if name.startswith("low-"))

    assert high["status"]["phase"] == "Succeeded"
    assert "deletionTimestamp" in stopped["metadata"]
    assert span(high)[1] <= parse(again["metadata"]["creationTimestamp"]) + 1.0


async def test_served_tasks_take_turns_and_one_that_is_preempted_is_asked_again(stage: Stage, queue: str) -> None:
    await create_served(stage, "low", queue, maxTokens=800)
    await stage.wait_status("low", lambda status: status.get("nodeName") is not None)
    await create_served(stage, "high", queue, maxTokens=16, priority=100)
    tasks = await stage.wait_all_final(["low", "high"], timeout_s=120.0)

    assert [task["status"]["phase"] for task in tasks.values()] == ["Succeeded"] * 2
    assert tasks["low"]["status"]["stoppedAttempts"] == [1]
    assert span(tasks["high"])[1] <= span(tasks["low"])[0]


async def test_a_deleted_task_takes_its_workload_along(stage: Stage, queue: str) -> None:
    await create(stage, "first", queue, output_tokens=LONG)
    await stage.wait_status("first", lambda status: status.get("phase") == "Running")
    await stage.lab.client.delete(names.task_path(stage.namespace, "first"), {"propagationPolicy": "Background"})
    await wait_until(lambda: has_workloads(stage, 0), timeout_s=60.0)


async def test_a_suspended_task_runs_once_it_is_not(stage: Stage) -> None:
    await stage.create("held", suspend=True)
    held = await stage.wait_status("held", lambda status: bool(condition({"status": status}, "Scheduled")))
    assert condition(held, "Scheduled")["reason"] == "Suspended"
    await stage.lab.client.patch(names.task_path(stage.namespace, "held"), {"spec": {"suspend": False}})
    assert (await stage.wait_final("held"))["status"]["phase"] == "Succeeded"


async def test_the_examples_run(stage: Stage) -> None:
    await stage.kubectl("apply", "--namespace", stage.namespace, "--filename", str(EXAMPLES / "kueue/queue.yaml"))
    await stage.kubectl("apply", "--namespace", stage.namespace, "--filename", str(EXAMPLES / "queued-task.yaml"))
    await stage.wait_status("quick", lambda status: status.get("nodeName") is not None)


def is_waiting_for_quota(status: Object) -> bool:
    conditions = {one["type"]: one["reason"] for one in status.get("conditions", ())}
    return status.get("phase") == "Pending" and conditions.get("Scheduled") == "WaitingForQuota"


def lacks_quota(status: Object) -> bool:
    """Whether Kueue has examined a task, and its queue is full."""
    return is_waiting_for_quota(status) and "insufficient unused quota" in status.get("message", "")


async def has_running_pod(stage: Stage, job: str) -> bool:
    pods = (await stage.pods()).items()
    return any(name.startswith(f"{job}-") and pod["status"]["phase"] == "Running" for name, pod in pods)


async def read_job(stage: Stage, name: str) -> Object:
    return await stage.lab.client.get(f"/apis/batch/v1/namespaces/{stage.namespace}/jobs/{name}")


def span(task: Object) -> tuple[float, float]:
    """Return when a task started and completed, in Unix seconds."""
    return parse(task["status"]["startTime"]), parse(task["status"]["completionTime"])


def parse(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()


async def create(
    stage: Stage, name: str, queue: str, *, output_tokens: int = 60, priority_class: str = "", **spec: Any
) -> None:
    manifest = task_manifest(_request(stage, name, output_tokens), namespace=stage.namespace)
    if priority_class:
        manifest["metadata"]["labels"] = {PRIORITY_CLASS_LABEL: priority_class}
    await _post(stage, manifest, queue, spec)


async def create_served(stage: Stage, name: str, queue: str, **spec: Any) -> None:
    work = {"model": stage.lab.scenario.model, "deadline": "120s", "prompt": "Which is the largest planet?"}
    manifest = {"apiVersion": names.API_VERSION, "kind": names.TASK_KIND, "metadata": {"name": name}, "spec": work}
    await _post(stage, manifest, queue, spec)


async def create_job(stage: Stage, name: str, queue: str, *, output_tokens: int = 60) -> None:
    spec = {"template": build_template(stage, output_tokens=output_tokens)}
    job = {"metadata": {"name": name, "labels": {QUEUE_LABEL: queue}}, "spec": spec}
    await stage.lab.client.post(f"/apis/batch/v1/namespaces/{stage.namespace}/jobs", job)


async def all_finished(stage: Stage, count: int) -> bool:
    workloads = (await stage.lab.client.get(workloads_path(stage.namespace)))["items"]
    kinds = [{one["type"] for one in item["status"]["conditions"] if one["status"] == "True"} for item in workloads]
    return len(kinds) == count and all("Finished" in types for types in kinds)


async def has_workloads(stage: Stage, count: int) -> bool:
    return len((await stage.lab.client.get(workloads_path(stage.namespace)))["items"]) == count


async def _post(stage: Stage, manifest: Object, queue: str, spec: Object) -> None:
    manifest["spec"].update(spec)
    manifest["metadata"].setdefault("labels", {})[QUEUE_LABEL] = queue
    await stage.lab.client.post(names.tasks_path(stage.namespace), manifest)


def _request(stage: Stage, name: str, output_tokens: int) -> Request:
    return Request(name, stage.lab.scenario.model, 0.0, 200, output_tokens, 1000, 120.0)
