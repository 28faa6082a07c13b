"""Pods that claim devices: PerLLM chooses the node, kube-scheduler the devices."""

import asyncio

import pytest

from e2e.devices import (
    CLAIM,
    DEVICE_CLASS,
    DEVICES,
    RESOURCE,
    RESOURCES_FROM_MINOR,
    build_claiming_spec,
    create_claim_template,
    has_devices,
)
from e2e.stage import Stage, condition, wait_until
from perllm.api import names
from perllm.cluster.client import Object
from perllm_lab.workload.names import OUTPUT_TOKENS_ANNOTATION
from programs.kubernetes import find_minor


async def test_tasks_run_on_the_node_with_devices_at_most_one_for_each(stage: Stage, node: str) -> None:
    await create_claim_template(stage, "gpu", 1)
    tasks = await stage.create_many("task", 2 * DEVICES, template=template(CLAIM))
    done = await stage.wait_all_final(tasks, timeout_s=120)
    assert {task["status"]["phase"] for task in done.values()} == {"Succeeded"}
    assert {task["status"]["nodeName"] for task in done.values()} == {node}
    assert await stage.metric("perllm_ledger_drift") == 0
    unschedulable = [
        name
        for name, states in stage.seen.items()
        for state in states
        if any(one.get("reason") == "Unschedulable" for one in state["status"].get("conditions", ()))
    ]
    print(f"\npods that kube-scheduler found no device for at first: {len(set(unschedulable))} of {len(tasks)}")


async def test_a_task_takes_as_many_slots_as_its_claim_asks_for_devices(stage: Stage, node: str) -> None:
    await create_claim_template(stage, "gpu", DEVICES + 1)
    await stage.create("large", template=template(CLAIM), onInfeasible="Reject")
    task = await stage.wait_final("large")
    assert condition(task, "Accepted")["status"] == "False"
    assert f"{RESOURCE}: {DEVICES + 1} on one node, the largest has {DEVICES}" in task["status"]["message"]
    assert "LeaderWorkerSet" in task["status"]["message"]


@pytest.mark.skipif(find_minor() < RESOURCES_FROM_MINOR, reason="devices have no resources")
@pytest.mark.parametrize("resource", [RESOURCE, f"deviceclass.resource.kubernetes.io/{DEVICE_CLASS}"])
async def test_tasks_get_devices_by_a_resource_at_most_one_for_each(stage: Stage, node: str, resource: str) -> None:
    container = {"name": "llm", "image": "llm", "resources": {"limits": {resource: "1"}}}
    tasks = await stage.create_many("task", DEVICES + 1, template={"spec": {"containers": [container]}})
    done = await stage.wait_all_final(tasks, timeout_s=90)
    assert {task["status"]["phase"] for task in done.values()} == {"Succeeded"}
    assert {task["status"]["nodeName"] for task in done.values()} == {node}
    assert await stage.metric("perllm_ledger_drift") == 0


async def test_devices_that_others_hold_are_waited_for(stage: Stage, node: str) -> None:
    await create_claim_template(stage, "gpu", 1)
    await create_claim_template(stage, "most", DEVICES)
    spec = build_claiming_spec({**CLAIM, "resourceClaimTemplateName": "most"})
    lasting = {OUTPUT_TOKENS_ANNOTATION: "1000000"}
    other: Object = {"metadata": {"name": "other", "annotations": lasting}, "spec": spec}
    await stage.lab.client.post(stage.pods_path, other)
    await wait_until(lambda: is_bound(stage, "other"), timeout_s=20)
    await stage.create("patient", template=template(CLAIM))
    await stage.wait_status("patient", lambda status: "waiting" in (status.get("message") or "").lower())
    assert "patient-1" not in await stage.pods()
    await stage.lab.client.delete(f"{stage.pods_path}/other")
    task = await stage.wait_final("patient", timeout_s=60)
    assert (task["status"]["phase"], task["status"]["nodeName"]) == ("Succeeded", node)


@pytest.mark.skipif(has_devices(), reason="the cluster serves devices")
async def test_a_cluster_without_devices_is_served_and_they_are_reported_once(stage: Stage) -> None:
    await stage.lab.operator.stop()
    log_start = stage.lab.operator_log.stat().st_size
    await stage.lab.start_operator()
    await stage.create("plain")
    assert (await stage.wait_final("plain"))["status"]["phase"] == "Succeeded"
    reported = [line for line in stage.read_log(log_start) if names.DEVICE_GROUP in line.get("message", "")]
    assert [line["level"] for line in reported] == ["WARNING"]


async def test_devices_of_an_annotated_pod_count_once_also_after_a_restart(stage: Stage, node: str) -> None:
    await create_claim_template(stage, "gpu", 1)
    await create_claim_template(stage, "most", DEVICES - 1)
    most = {**CLAIM, "resourceClaimTemplateName": "most"}
    await create_annotated(stage, "server", most)
    await wait_until(lambda: is_bound(stage, "server"), timeout_s=20)
    pod = (await stage.pods())["server"]
    assert names.DECISION_ANNOTATION in pod["metadata"]["annotations"]
    await run_on_the_last_device(stage, "before")
    await stage.lab.operator.kill()
    await stage.lab.start_operator()
    await run_on_the_last_device(stage, "after")
    await stage.create("large", template=template(most))
    await stage.wait_status("large", lambda status: "waiting" in (status.get("message") or "").lower())
    await asyncio.sleep(2.0)
    assert "large-1" not in await stage.pods()
    await stage.lab.client.delete(f"{stage.pods_path}/server")
    assert (await stage.wait_final("large", timeout_s=60))["status"]["phase"] == "Succeeded"


async def run_on_the_last_device(stage: Stage, name: str) -> None:
    await stage.create(name, template=template(CLAIM))
    assert (await stage.wait_final(name))["status"]["phase"] == "Succeeded"


async def create_annotated(stage: Stage, name: str, claim: Object) -> None:
    """Create a pod without a task that runs until it is deleted."""
    said = {names.MODEL_ANNOTATION: stage.lab.scenario.model, OUTPUT_TOKENS_ANNOTATION: "1000000"}
    spec = {**build_claiming_spec(claim), "schedulerName": names.SCHEDULER_NAME}
    await stage.lab.client.post(stage.pods_path, {"metadata": {"name": name, "annotations": said}, "spec": spec})


def template(claim: Object) -> Object:
    return {"spec": build_claiming_spec(claim)}


async def is_bound(stage: Stage, name: str) -> bool:
    return bool((await stage.pods()).get(name, {}).get("spec", {}).get("nodeName"))
