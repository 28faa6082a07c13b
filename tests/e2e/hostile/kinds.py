"""The kinds of hostile input, and how each reaches the cluster."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from e2e.hostile.cases import Case
from e2e.hostile.rig import MERGE_PATCH, Reply, Rig
from perllm.api import names
from perllm_lab.workload.names import MESSAGE_ANNOTATION
from strategies.answers import odd_answers
from strategies.events import odd_events
from strategies.pods import odd_pods
from strategies.profiles import odd_profiles
from strategies.reports import odd_reports
from strategies.statuses import odd_statuses
from strategies.tasks import METADATA, healthy_task, odd_tasks
from strategies.values import Oddities, place

EVENT_PAUSE_S = 0.3
# Longer than the time between two polls.
ANSWERING_S = 1.2


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of hostile input.

    Attributes:
        name: of the kind.
        oddities: what can be wrong with it.
        share: of all input.
        put: sends one case to a namespace; returns the last response of the API server.
        has_task: whether a task with the name of the case must end, or say why it does not.
        is_offline: whether it is sent while the operator is stopped.
        one_by_one: whether cases are sent one after the other.
    """

    name: str
    oddities: Oddities
    share: float
    put: Callable[[Rig, str, Case], Awaitable[Reply]]
    has_task: bool = True
    is_offline: bool = False
    one_by_one: bool = False


async def _put_task(rig: Rig, namespace: str, case: Case) -> Reply:
    metadata = {"name": case.name, "namespace": namespace}
    return await rig.send("POST", names.tasks_path(namespace), {**case.value, "metadata": metadata})


async def _put_status(rig: Rig, namespace: str, case: Case) -> Reply:
    await rig.send("POST", names.tasks_path(namespace), healthy_task(case.name, namespace))
    path = names.task_status_path(namespace, case.name)
    return await rig.send("PATCH", path, {"status": case.value}, content_type=MERGE_PATCH)


async def _put_report(rig: Rig, namespace: str, case: Case) -> Reply:
    task = place(healthy_task(case.name, namespace), (*METADATA, "annotations", MESSAGE_ANNOTATION), case.value)
    return await rig.send("POST", names.tasks_path(namespace), task)


async def _put_pod(rig: Rig, namespace: str, case: Case) -> Reply:
    owner = (await rig.send("POST", names.tasks_path(namespace), healthy_task(case.name, namespace))).content
    reference = {"apiVersion": names.API_VERSION, "kind": names.TASK_KIND, "name": case.name, "controller": True}
    metadata = {
        **case.value["metadata"],
        "name": f"{case.name}-odd",
        "ownerReferences": [{**reference, "uid": owner["metadata"]["uid"]}],
    }
    metadata["labels"] = {names.TASK_LABEL: case.name, **metadata["labels"]}
    return await rig.send("POST", names.pods_path(namespace), {**case.value, "metadata": metadata})


async def _put_profile(rig: Rig, _: str, case: Case) -> Reply:
    items = (await rig.send("GET", names.node_profiles_path())).content["items"]
    profiles = [item for item in items if item.get("status")]
    profile = profiles[int(case.name.rpartition("-")[2]) % len(profiles)]
    _, status = case.value.apply(profile["status"])
    path = names.node_profile_status_path(profile["metadata"]["name"])
    return await rig.send("PUT", path, {**profile, "status": status})


async def _put_event(rig: Rig, _: str, case: Case) -> Reply:
    count = await rig.api.add(case.value)
    await asyncio.sleep(EVENT_PAUSE_S)
    return Reply(200 if count else 404, {"message": "no watch is open"})


async def _put_answer(rig: Rig, _: str, case: Case) -> Reply:
    rig.prometheus.answer = case.value
    await asyncio.sleep(ANSWERING_S)
    rig.prometheus.answer = None
    return Reply(200, {})


KINDS = (
    Kind("task", odd_tasks(), 0.44, _put_task),
    Kind("report", odd_reports(), 0.14, _put_report),
    Kind("pod", odd_pods(), 0.10, _put_pod),
    Kind("status", odd_statuses(), 0.10, _put_status, is_offline=True),
    Kind("profile", odd_profiles(), 0.08, _put_profile, has_task=False, is_offline=True),
    Kind("event", odd_events(), 0.09, _put_event, has_task=False, one_by_one=True),
    Kind("answer", odd_answers(), 0.05, _put_answer, has_task=False, one_by_one=True),
)
