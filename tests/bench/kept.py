"""Finished tasks in any number, with their pods: copies of one that really ran, written straight to the API server."""

import asyncio
import copy
import itertools
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import orjson

from bench.cluster import AT_A_TIME, wait_until
from bench.fleets import PODS, TASKS, build_tasks
from perllm.api import names
from perllm.api.names import pods_path, tasks_path
from perllm.cluster.client import ApiError, Client, Object
from perllm.cluster.times import format_time, parse_time_s

EACH_NAMESPACE = 1000
"""Fewer than a namespace may keep."""

RUN_S = 2.0


class Kept:
    """Makes finished tasks.

    Args:
        client: of an administrator.
        task: a task that succeeded.
        pod: its pod.
    """

    def __init__(self, client: Client, task: Object, pod: Object) -> None:
        self._client = client
        self._task = task
        self._pod = pod
        self._numbers = itertools.count()
        self._namespaces: set[str] = set()
        self.count = 0

    async def grow(self, count: int) -> None:
        """Add finished tasks until there are `count`."""
        numbers = list(itertools.islice(self._numbers, count - self.count))
        for namespace in sorted({_namespace(number) for number in numbers} - self._namespaces):
            await _create_namespace(self._client, namespace)
            self._namespaces.add(namespace)
        await do_all(self._create, numbers)
        self.count = count

    async def _create(self, number: int) -> None:
        namespace, name = _namespace(number), f"kept-{number}"
        path, pod_name = tasks_path(namespace), names.pod_name(name, 1)
        metadata = {"name": name, "namespace": namespace}
        task = await self._client.post(path, {**_strip(self._task), "metadata": metadata})
        later_s = _created_s(task) - _created_s(self._task)
        status = {**_shift(self._task["status"], later_s), "podName": pod_name}
        await self._client.patch(f"{path}/{name}/status", {"status": status})
        await self._client.post(pods_path(namespace), self._build_pod(pod_name, task, later_s))
        status = _shift(self._pod["status"], later_s)
        await self._client.patch(f"{pods_path(namespace)}/{pod_name}/status", {"status": status})

    def _build_pod(self, name: str, task: Object, later_s: float) -> Object:
        pod = _strip(self._pod)
        owner = {**self._pod["metadata"]["ownerReferences"][0], "name": task["metadata"]["name"]}
        labels = {**self._pod["metadata"]["labels"], names.TASK_LABEL: task["metadata"]["name"]}
        annotations, own_uid = _shift(self._pod["metadata"]["annotations"], later_s), task["metadata"]["uid"]
        record = orjson.loads(annotations[names.DECISION_ANNOTATION])
        record |= {"task_id": own_uid, "decided_s": record["decided_s"] + later_s}
        annotations[names.DECISION_ANNOTATION] = orjson.dumps(record).decode()
        pod["metadata"] = {
            "name": name,
            "namespace": task["metadata"]["namespace"],
            "labels": labels,
            "annotations": annotations,
            "ownerReferences": [{**owner, "uid": own_uid}],
        }
        return pod


async def run_pattern(client: Client) -> Kept:
    """Have one task placed, end its pod as a kubelet would, and wait until everything about it is stored."""
    (manifest,) = build_tasks("pattern", 1)
    name = manifest["metadata"]["name"]
    path, pod_path = f"{TASKS}/{name}", f"{PODS}/{names.pod_name(name, 1)}"
    await client.post(TASKS, manifest)

    async def is_bound() -> bool:
        pod = await _find(client, pod_path)
        return bool(pod and pod["spec"].get("nodeName"))

    async def is_settled() -> bool:
        status, pod = (await client.get(path)).get("status") or {}, await client.get(pod_path)
        is_measured = (status.get("observed") or {}).get("energyQuality") is not None
        return is_measured and not pod["metadata"].get("finalizers")

    await wait_until(is_bound, "the pattern is placed")
    await client.patch(f"{pod_path}/status", {"status": _succeeded(await client.get(pod_path))})
    await wait_until(is_settled, "the pattern is settled")
    return Kept(client, await client.get(path), await client.get(pod_path))


async def do_all(work: Callable[[Any], Awaitable[None]], items: Iterable[Any]) -> None:
    """Do something for each of many items, a bounded number at a time."""
    rest = iter(items)

    async def do_some() -> None:
        for item in rest:
            await work(item)

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_A_TIME):
            group.create_task(do_some())


def _namespace(number: int) -> str:
    return f"kept-{number // EACH_NAMESPACE}"


def _strip(item: Object) -> Object:
    """Return an object without its identity and its status."""
    return {key: copy.deepcopy(value) for key, value in item.items() if key not in ("metadata", "status")}


def _shift(value: Any, by_s: float) -> Any:
    """Return JSON in which all times are later."""
    if isinstance(value, dict):
        return {key: _shift(one, by_s) for key, one in value.items()}
    if isinstance(value, list):
        return [_shift(one, by_s) for one in value]
    time_s = parse_time_s(value)
    return value if time_s is None else _format(value, time_s + by_s)


def _format(like: str, time_s: float) -> str:
    """Return a time in whole seconds if another one is."""
    text = format_time(time_s)
    return text if "." in like else f"{text.partition('.')[0]}Z"


def _created_s(item: Object) -> float:
    return parse_time_s(item["metadata"]["creationTimestamp"]) or 0.0


def _succeeded(pod: Object) -> Object:
    """Return the status of a pod whose container ran for `RUN_S` from the pod's creation on."""
    created = pod["metadata"]["creationTimestamp"]
    started, finished = created, _shift(created, RUN_S)
    ended = {"exitCode": 0, "reason": "Completed", "startedAt": started, "finishedAt": finished}
    container = pod["spec"]["containers"][0]
    state = {"name": container["name"], "image": container["image"], "imageID": "", "ready": False, "restartCount": 0}
    return {
        "phase": "Succeeded",
        "startTime": started,
        "containerStatuses": [{**state, "state": {"terminated": ended}}],
    }


async def _create_namespace(client: Client, name: str) -> None:
    await client.post("/api/v1/namespaces", {"metadata": {"name": name}})

    async def has_account() -> bool:
        return await _find(client, f"/api/v1/namespaces/{name}/serviceaccounts/default") is not None

    await wait_until(has_account, f"namespace {name} can have pods")


async def _find(client: Client, path: str) -> Object | None:
    try:
        return await client.get(path)
    except ApiError as error:
        if error.status != 404:
            raise
        return None
