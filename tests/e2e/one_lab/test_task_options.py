"""The options of a task besides its size, each as kubectl shows it."""

import asyncio
from collections import Counter

from e2e.stage import Stage, condition, wait_until
from perllm_lab.workload.requests import Request

TASKS = 60


async def test_reject_ends_a_hopeless_task_with_the_reason_and_without_a_pod(stage: Stage) -> None:
    await stage.create("hopeless", deadline="200ms", onInfeasible="Reject")
    task = await stage.wait_final("hopeless")
    accepted = condition(task, "Accepted")
    assert (task["status"]["phase"], accepted["status"], accepted["reason"]) == ("Rejected", "False", "Infeasible")
    assert "200ms" in task["status"]["message"]
    assert "Rejected" in await stage.kubectl("get", "llmtasks", "--namespace", stage.namespace)
    assert stage.seen == {}


async def test_best_effort_runs_a_hopeless_task_late(stage: Stage) -> None:
    await stage.create("late", deadline="200ms", onInfeasible="BestEffort")
    task = await stage.wait_final("late")
    assert (task["status"]["phase"], task["status"]["deadlineMet"]) == ("Succeeded", False)
    assert condition(task, "DeadlineMet")["status"] == "False"


async def test_terminate_ends_a_late_task_and_its_pod(stage: Stage) -> None:
    await stage.create("endless", output_tokens=5000, deadline="8s", tiers=["edge"], onDeadlineMissed="Terminate")
    await stage.wait_status("endless", lambda status: status.get("phase") == "Running")
    task = await stage.wait_final("endless")
    completed = condition(task, "Completed")
    assert (task["status"]["phase"], completed["reason"]) == ("Failed", "DeadlineExceeded")
    await wait_until(lambda: _has_no_pods(stage), timeout_s=10)
    assert [line["outcome"] for line in stage.truth()] == ["Deleted"]


async def test_a_failing_pod_is_replaced_as_often_as_retries_allow(stage: Stage) -> None:
    learned = await stage.learned()
    await stage.create("failing", fails=True, retries=2)
    task = await stage.wait_final("failing", timeout_s=60)
    assert (task["status"]["phase"], task["status"]["attempts"]) == ("Failed", 3)
    assert "exit code 1" in task["status"]["message"]
    assert Counter(line["outcome"] for line in stage.truth()) == Counter(Failed=3)
    await asyncio.sleep(3.0)  # a profile is written every two seconds
    assert await stage.learned() == learned


async def test_a_task_is_deleted_when_its_time_after_the_end_is_over(stage: Stage) -> None:
    await stage.create("brief", ttlAfterFinished="2s")
    await stage.wait_status("brief", lambda status: status.get("phase") == "Succeeded")
    await wait_until(lambda: _is_gone(stage, "brief"), timeout_s=10)
    # Kubernetes' garbage collector discovers new kinds of owners every 30 s.
    await wait_until(lambda: _has_no_pods(stage), timeout_s=45)


async def test_tiers_are_obeyed(stage: Stage) -> None:
    tasks = await stage.wait_all_final(await stage.create_many("cloud", 12, tiers=["cloud"]))
    cloud = {node.name for node in stage.lab.scenario.nodes() if node.tier == "cloud"}
    assert {line["node"] for line in stage.truth()} <= cloud
    assert {task["status"]["tier"] for task in tasks.values()} == {"cloud"}


async def test_a_template_that_kubernetes_denies_is_rejected_in_the_words_of_kubernetes(stage: Stage) -> None:
    await stage.create("broken", containers=[{"name": "llm"}])
    task = await stage.wait_final("broken")
    assert (task["status"]["phase"], condition(task, "Accepted")["reason"]) == ("Rejected", "InvalidTemplate")
    assert "spec.containers[0].image: Required value" in task["status"]["message"]
    assert stage.seen == {}


async def test_all_tasks_finish_once_though_the_api_server_dies(stage: Stage) -> None:
    requests = [_request(stage, number) for number in range(TASKS)]
    replay = stage.replay(requests)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(replay.run(timeout_s=120.0))
        await wait_until(lambda: _has_ended(stage, TASKS // 4), timeout_s=30)
        await stage.lab.control_plane.kill_component("kube-apiserver")
        await asyncio.sleep(2.0)
        await stage.lab.control_plane.start_component("kube-apiserver")
        await running
    assert Counter(task["status"]["phase"] for task in (await stage.tasks()).values()) == Counter(Succeeded=TASKS)
    assert stage.completed_runs() == Counter(dict.fromkeys(replay.created_s, 1))


def _request(stage: Stage, number: int) -> Request:
    at_s = number * 0.15 * stage.lab.settings.speed
    return Request(f"steady-{number:02d}", stage.lab.scenario.model, at_s, 200, 100, 1000, 120.0)


async def _has_ended(stage: Stage, count: int) -> bool:
    return len(stage.truth()) >= count


async def _has_no_pods(stage: Stage) -> bool:
    return not await stage.pods()


async def _is_gone(stage: Stage, name: str) -> bool:
    return await stage.task(name) is None
