"""Served tasks on a real control plane: real agents make requests to the simulated model servers."""

import asyncio
import time
from collections import Counter
from datetime import datetime

from e2e.requests import synthetic_requests
from e2e.stage import Stage, condition, wait_until
from perllm.api import names
from perllm.api.task_status import RunsAs
from perllm.cluster.client import Object

TASKS = 60
FREE_S = 10.0
"""Far less than a long story takes to its end."""

LATE_S = 8.0
CLOCK_S = 0.1
FIVE_LINES = {"model": "llama-3.1-8b", "deadline": "20s", "prompt": "Which is the largest planet?"}


def requests_in_truth(stage: Stage) -> Counter[str]:
    """Return how often each task's request has run to its end."""
    lines = stage.lab.read_truth(stage.truth_start)
    return Counter(line["task"] for line in lines if line["kind"] == "request" and line["outcome"] == "Succeeded")


async def create(stage: Stage, name: str, **changes: object) -> None:
    spec = {**FIVE_LINES, "model": stage.lab.scenario.model, **changes}
    manifest: Object = {
        "apiVersion": names.API_VERSION,
        "kind": names.TASK_KIND,
        "metadata": {"name": name},
        "spec": {field: value for field, value in spec.items() if value is not None},
    }
    await stage.lab.client.post(names.tasks_path(stage.namespace), manifest)


async def test_five_lines_are_answered_without_a_pod(stage: Stage) -> None:
    start_s = time.monotonic()
    await create(stage, "hello", maxTokens=16)
    task = await stage.wait_final("hello")
    status = task["status"]
    print(f"final {time.monotonic() - start_s:.2f} s after the creation was requested, {status['observed']}")
    assert (status["phase"], status["runsAs"], status["deadlineMet"]) == ("Succeeded", "request", True)
    assert status["result"]["text"]
    assert (status["observed"]["tokens"], status["observed"]["tokenSource"]) == (16, "usage")
    assert await stage.pods() == {}


async def test_several_prompts_have_their_answers_in_an_object_of_the_task(stage: Stage) -> None:
    await create(
        stage, "several", prompt=None, prompts=["Which is the largest planet?", "And the smallest?"], maxTokens=16
    )
    status = (await stage.wait_final("several"))["status"]
    assert (status["phase"], status["run"]["prompts"]["answered"], status["observed"]["tokens"]) == ("Succeeded", 2, 32)
    answer = await stage.lab.client.get(names.task_answer_path(stage.namespace, status["result"]["answerName"]))
    assert [bool(one["text"]) for one in answer["answers"]] == [True, True]


async def test_a_replay_is_answered_once_measured_and_learned(stage: Stage) -> None:
    before = await stage.learned()
    requests = synthetic_requests(stage.lab.scenario, TASKS, rate_per_s=6.0, seed=[3])
    replay = stage.replay(requests, runs_as=RunsAs.REQUEST)
    await replay.run(timeout_s=120.0)
    tasks = await stage.wait_all_settled(list(replay.objects), timeout_s=60.0)
    phases = Counter(task["status"]["phase"] for task in tasks.values())
    qualities = Counter(task["status"]["observed"]["energyQuality"] for task in tasks.values())
    print(phases, qualities, Counter(task["status"]["tier"] for task in tasks.values()))
    assert phases == {"Succeeded": TASKS}
    assert set(requests_in_truth(stage).values()) == {1}
    assert qualities["missing"] == 0
    await stage.wait_learned(before + TASKS, timeout_s=30.0)


async def test_a_deleted_task_frees_its_slot_at_once(stage: Stage) -> None:
    await create(stage, "long", prompt=_long_prompt("long"), deadline="300s")
    await stage.wait_status("long", lambda status: status.get("phase") == "Running")
    await asyncio.sleep(0.5)
    assert await stage.metric("perllm_tasks_in_flight") == 1
    deleted_s = time.time()
    await stage.lab.client.delete(names.task_path(stage.namespace, "long"))
    freed_s = await wait_aborted(stage, "long")
    print(f"aborted {freed_s - deleted_s:.2f} s after the deletion was requested")
    assert freed_s < deleted_s + FREE_S
    await wait_until(lambda: _has_none_in_flight(stage), timeout_s=20.0)


async def test_a_deadline_that_ends_a_task_frees_its_slot_at_once(stage: Stage) -> None:
    await create(stage, "late", prompt=_long_prompt("late"), deadline=f"{LATE_S:g}s", onDeadlineMissed="Terminate")
    task = await stage.wait_final("late")
    freed_s = await wait_aborted(stage, "late")
    due_s = datetime.fromisoformat(task["status"]["receivedTime"]).timestamp() + LATE_S
    print(f"aborted {freed_s - due_s:.2f} s after the deadline")
    assert condition(task, "Completed")["reason"] == "DeadlineExceeded"
    assert due_s - CLOCK_S < freed_s < due_s + FREE_S


async def wait_aborted(stage: Stage, name: str) -> float:
    """Wait until a request was aborted; return the Unix time of that."""
    ends: list[str] = []

    async def is_aborted() -> bool:
        lines = stage.lab.read_truth(stage.truth_start)
        ends[:] = [one["finished"] for one in lines if one.get("outcome") == "Aborted" and one["task"] == name]
        return bool(ends)

    await wait_until(is_aborted, timeout_s=20.0)
    return datetime.fromisoformat(ends[0]).timestamp()


async def _has_none_in_flight(stage: Stage) -> bool:
    return await stage.metric("perllm_tasks_in_flight") == 0


def _long_prompt(name: str) -> str:
    return f"Tell a very long story. [[lab task={name} prompt=100 output=20000 bytes=400]]"
