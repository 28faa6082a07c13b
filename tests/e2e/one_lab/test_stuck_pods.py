"""A pod that does not start says why in its task's status, in the words of kube-scheduler, within seconds."""

import asyncio
from collections.abc import Mapping

from e2e.stage import Stage, condition, wait_until
from perllm.api.task_status import ConditionType

SECONDS = 20.0


async def test_the_reason_of_kube_scheduler_is_in_the_message_of_the_task(stage: Stage) -> None:
    volume = {"name": "weights", "persistentVolumeClaim": {"claimName": "missing"}}
    loop = asyncio.get_running_loop()
    await stage.create("stuck", template=_template_with(volume), deadline="10m")
    unschedulable_s = 0.0

    async def is_unschedulable() -> bool:
        nonlocal unschedulable_s
        for pod in (await stage.pods()).values():
            for one in pod.get("status", {}).get("conditions", ()):
                if one["type"] == "PodScheduled" and one.get("reason") == "Unschedulable":
                    unschedulable_s = loop.time()
                    return True
        return False

    await wait_until(is_unschedulable, timeout_s=20)
    task = await stage.wait_status("stuck", lambda status: "missing" in (status.get("message") or ""))
    took_s = loop.time() - unschedulable_s
    print(f"\nfrom the pod's condition to the task's message: {took_s:.2f} s: {task['status']['message']}")
    assert took_s < SECONDS
    assert 'persistentvolumeclaim "missing" not found' in task["status"]["message"]
    assert condition(task, ConditionType.SCHEDULED)["status"] == "False"
    assert condition(task, ConditionType.FINISHED)["status"] == "False"


async def test_pods_that_wait_for_volumes_of_their_own_delay_no_other_task(stage: Stage) -> None:
    volume = {"name": "weights", "persistentVolumeClaim": {"claimName": "missing"}}
    for number in range(40):
        await stage.create(f"stuck-{number}", template=_template_with(volume), deadline="10m")
    await stage.create("other")
    task = await stage.wait_final("other", timeout_s=40)
    assert task["status"]["phase"] == "Succeeded"


def _template_with(volume: Mapping[str, object]) -> dict[str, object]:
    return {"spec": {"containers": [{"name": "llm", "image": "llm"}], "volumes": [volume]}}
