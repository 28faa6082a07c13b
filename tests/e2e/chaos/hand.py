"""What people do to objects by hand."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from e2e.chaos.plan import Fault, FaultKind
from perllm.api import names
from perllm.cluster.client import ApiError, Client, Object
from perllm_lab.nodes.writer import FINAL_PHASES

PATIENCE_S = 10.0
RETRY_S = 0.3

NOW: Object = {"gracePeriodSeconds": 0}
EDITS: Sequence[Object | None] = ({"message": "edited by hand"}, {"phase": "Pending"}, {"nodeName": None}, None)
"""Statuses that somebody may write; None removes the field, or the whole."""


class NothingToHitError(Exception):
    """There is no object of the kind that a fault needs."""


@dataclass(frozen=True, slots=True)
class Hand:
    """An administrator with a direct connection to the API server."""

    client: Client
    namespaces: Sequence[str]

    async def act(self, fault: Fault) -> str:
        """Carry out a fault, once there is an object for it and the API server answers; return what was hit.

        Raises:
            NothingToHitError: there is no such object, or the API server does not answer, for too long.
        """
        work = self._find_work(fault)
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            try:
                return await work(fault.draw)
            except (NothingToHitError, ApiError) as error:
                if isinstance(error, ApiError) and not (error.is_transient or error.status in (404, 409)):
                    raise
                if time.monotonic() > deadline_s:
                    raise NothingToHitError(str(error)) from error
            await asyncio.sleep(RETRY_S)

    def _find_work(self, fault: Fault) -> Callable[[float], Awaitable[str]]:
        return {
            FaultKind.DELETE_FINISHED_POD: self._delete_finished_pod,
            FaultKind.DELETE_RUNNING_POD: self._delete_running_pod,
            FaultKind.FORCE_POD_DELETION: self._force_pod_deletion,
            FaultKind.UNLABEL_POD: self._unlabel_pod,
            FaultKind.DELETE_TASK: self._delete_task,
            FaultKind.EDIT_STATUS: self._edit_status,
            FaultKind.DELETE_PROFILE: self._delete_profile,
            FaultKind.DELETE_RUNNING_TASK: self._delete_running_task,
        }[fault.kind]

    async def _delete_finished_pod(self, draw: float) -> str:
        pod = _choose([pod for pod in await self._pods() if _has_ended(pod)], draw)
        await self.client.delete(_path(pod))
        return _key(pod)

    async def _delete_running_pod(self, draw: float, options: Object | None = None) -> str:
        pod = _choose([pod for pod in await self._pods() if pod["status"]["phase"] == "Running"], draw)
        await self.client.delete(_path(pod), options)
        return _key(pod)

    async def _force_pod_deletion(self, draw: float) -> str:
        return await self._delete_running_pod(draw, NOW)

    async def _unlabel_pod(self, draw: float) -> str:
        pod = _choose(await self._pods(), draw)
        await self.client.patch(_path(pod), {"metadata": {"labels": {names.TASK_LABEL: None}}})
        return _key(pod)

    async def _delete_task(self, draw: float) -> str:
        return await self._delete(_choose(await self._tasks(), draw))

    async def _delete_running_task(self, draw: float) -> str:
        tasks = await self._tasks()
        return await self._delete(_choose([task for task in tasks if _runs(task)], draw))

    async def _delete(self, task: Object) -> str:
        await self.client.delete(names.task_path(task["metadata"]["namespace"], task["metadata"]["name"]))
        return _key(task)

    async def _edit_status(self, draw: float) -> str:
        task = _choose(await self._tasks(), draw)
        edit = EDITS[int(draw * 1000) % len(EDITS)]
        await self.client.patch(
            names.task_status_path(task["metadata"]["namespace"], task["metadata"]["name"]), {"status": edit}
        )
        return f"{_key(task)}: {edit}"

    async def _delete_profile(self, draw: float) -> str:
        profile = _choose((await self.client.get(names.node_profiles_path()))["items"], draw)
        name: str = profile["metadata"]["name"]
        await self.client.delete(names.node_profile_path(name))
        return name

    async def _pods(self) -> list[Object]:
        listed = [await self.client.get(names.pods_path(namespace)) for namespace in self.namespaces]
        return [pod for items in listed for pod in items["items"] if "deletionTimestamp" not in pod["metadata"]]

    async def _tasks(self) -> list[Object]:
        listed = [await self.client.get(names.tasks_path(namespace)) for namespace in self.namespaces]
        return [task for items in listed for task in items["items"]]


def _choose(candidates: Sequence[Object], draw: float) -> Object:
    if not candidates:
        raise NothingToHitError("there is no such object")
    return candidates[int(draw * len(candidates))]


def _has_ended(pod: Object) -> bool:
    return pod["status"]["phase"] in FINAL_PHASES


def _runs(task: Object) -> bool:
    return (task.get("status") or {}).get("phase") == "Running"


def _path(pod: Object) -> str:
    return f"{names.pods_path(pod['metadata']['namespace'])}/{pod['metadata']['name']}"


def _key(item: Object) -> str:
    return f"{item['metadata']['namespace']}/{item['metadata']['name']}"
