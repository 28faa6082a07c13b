"""Namespaces whose pods the API server denies, next to one whose pods it admits."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from e2e.stage import Stage, condition, open_stage, wait_until
from perllm.api import names
from perllm.cluster.client import ApiError, Object
from perllm.doctor.finding import Level
from perllm.doctor.tasks import check_tasks
from perllm_lab.lab import Lab

DENIED = 100
PROMPTLY_S = 20.0
"""Far less than the pauses of tasks that were denied often."""

SIGNS = 6
"""Each brings retries: after so many the next pause, which doubles with each of them, is above half a minute."""

ECHOES_S = 4.0
"""A sign is over by then."""

QUOTA = {"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
ENFORCE = "pod-security.kubernetes.io/enforce"


@pytest_asyncio.fixture(loop_scope="session")
async def full(lab: Lab) -> AsyncIterator[Stage]:
    """A namespace with a quota of no pods, and tasks of the highest priority in it."""
    async with open_stage(lab, "full") as full:
        await lab.client.post("/api/v1/namespaces/full/resourcequotas", QUOTA)
        denied = await full.create_many("denied", DENIED, priority=1000)
        await asyncio.gather(*(full.wait_status(name, exceeds_quota) for name in denied))
        yield full
        await full.clear()


async def test_a_namespace_without_quota_delays_no_other_and_resumes_once_it_has_one(full: Stage, stage: Stage) -> None:
    loop = asyncio.get_running_loop()
    log_start = full.lab.operator_log.stat().st_size
    created_s = loop.time()
    await stage.create("bystander")
    await stage.wait_status("bystander", lambda status: status.get("nodeName") is not None)
    waited_s = loop.time() - created_s

    tasks = await full.tasks()
    assert all("exceeded quota: none" in task["status"]["message"] for task in tasks.values())
    (finding,) = check_tasks(list(tasks.values()), time.time())
    assert finding.level is Level.WARN
    assert f"{DENIED} of namespace full are waiting" in finding.message
    # Retries are under way for some of them, at times for many.
    await wait_until(lambda: _are_postponed(stage), timeout_s=30)

    raised_s = loop.time()
    quota = "/api/v1/namespaces/full/resourcequotas/none"
    await full.lab.client.patch(quota, {"spec": {"hard": {"pods": str(DENIED)}}})
    await full.wait_status("denied-0", lambda status: status.get("nodeName") is not None)
    first_s = loop.time() - raised_s
    await full.wait_all_final(list(tasks), timeout_s=120)
    logged = [line["message"] for line in stage.read_log(log_start) if "pods of namespace full" in line["message"]]
    print(f"\nbystander placed after {waited_s:.2f} s; first after the quota was raised {first_s:.2f} s; log: {logged}")
    assert waited_s < PROMPTLY_S
    assert first_s < PROMPTLY_S
    assert len(logged) <= 3


async def test_pods_that_pod_security_denies_are_created_once_the_namespace_allows_them(stage: Stage) -> None:
    namespace = f"/api/v1/namespaces/{stage.namespace}"
    await stage.lab.client.patch(namespace, {"metadata": {"labels": {ENFORCE: "restricted"}}})
    await wait_until(lambda: _denies_pods(stage), timeout_s=20)
    await stage.create("bare")
    task = await stage.wait_status("bare", lambda status: "violates PodSecurity" in (status.get("message") or ""))
    assert condition(task, "Scheduled")["reason"] == "PodForbidden"
    await _change_quota(stage, SIGNS)
    await asyncio.sleep(ECHOES_S)
    await stage.lab.client.patch(namespace, {"metadata": {"labels": {ENFORCE: None}}})
    await stage.wait_status("bare", lambda status: status.get("nodeName") is not None, timeout_s=PROMPTLY_S)


async def test_a_pod_of_another_owner_with_the_same_name_is_reported(stage: Stage) -> None:
    pod: Object = {"metadata": {"name": "web-1"}, "spec": {"containers": [{"name": "x", "image": "x"}]}}
    await stage.lab.client.post(names.pods_path(stage.namespace), pod)
    await stage.create("web")
    task = await stage.wait_status("web", lambda status: "already exists" in (status.get("message") or ""))
    assert condition(task, "Scheduled")["reason"] == "PodNameTaken"


@pytest.mark.parametrize("field", ["comand", "resourcs"])
async def test_a_field_that_kubernetes_does_not_know_ends_the_task_in_the_words_of_kubernetes(
    stage: Stage, field: str
) -> None:
    await stage.create("typo", containers=[{"name": "llm", "image": "llm", field: {}}])
    task = await stage.wait_final("typo")
    assert (task["status"]["phase"], condition(task, "Accepted")["reason"]) == ("Rejected", "InvalidTemplate")
    assert f'unknown field "spec.containers[0].{field}"' in task["status"]["message"]


async def _are_postponed(stage: Stage) -> bool:
    return await stage.metric("perllm_tasks_postponed", cause="QuotaExceeded") > 0.9 * DENIED


async def _change_quota(stage: Stage, times: int) -> None:
    """Change a quota that is in the way of no pod."""
    quotas = f"/api/v1/namespaces/{stage.namespace}/resourcequotas"
    await stage.lab.client.post(quotas, {"metadata": {"name": "ample"}, "spec": {"hard": {"pods": "100"}}})
    for number in range(times):
        await asyncio.sleep(1.0)
        await stage.lab.client.patch(f"{quotas}/ample", {"spec": {"hard": {"pods": str(101 + number)}}})


async def _denies_pods(stage: Stage) -> bool:
    """Whether the API server, which reads the labels of namespaces a moment later, would deny a pod now."""
    pod: Object = {"metadata": {"name": "dry"}, "spec": {"containers": [{"name": "x", "image": "x"}]}}
    try:
        await stage.lab.client.post(stage.pods_path, pod, dryRun="All")
    except ApiError as error:
        return error.status == 403
    return False


def exceeds_quota(status: Object) -> bool:
    return condition({"status": status}, "Scheduled").get("reason") == "QuotaExceeded"
