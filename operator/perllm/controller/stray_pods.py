"""Removes pods of tasks that lost the label which the operator selects pods by, without the operator seeing it.

While it watches, the operator sees such a pod vanish from its selection, and the task gets another pod. If the label is
lost while no watch is open, or no operator is running, the pod would be retained forever, and its name be taken.
"""

import asyncio
from collections.abc import Sequence

from perllm.api import names
from perllm.cluster.client import ApiError, Client
from perllm.cluster.pod import read_pod
from perllm.cluster.release import list_retained
from perllm.controller.pod_keeper import PodKeeper
from perllm.slices import Slices

RETRY_S = 5.0
SELECTOR = f"!{names.TASK_LABEL}"


class StrayPods:
    """Looks for stray pods.

    Args:
        client: the API server.
        pods: releases and deletes pods.
        paths: API paths of the pods that the operator may read.
    """

    def __init__(self, client: Client, pods: PodKeeper, paths: Sequence[str]) -> None:
        self._client = client
        self._pods = pods
        self._paths = paths

    async def run(self) -> None:
        """Release and delete all stray pods once, as soon as they can be listed, then wait until cancelled."""
        async with asyncio.TaskGroup() as group:
            for path in self._paths:
                group.create_task(self._remove_all_once_listed(path))
        await asyncio.Event().wait()

    async def remove(self, namespace: str, name: str) -> None:
        """Release and delete the pod of this name if it is a stray one.

        Raises:
            ApiError: pods cannot be listed.
        """
        await self._remove_all(names.pods_path(namespace), field_selector=f"metadata.name={name}")

    async def _remove_all_once_listed(self, path: str) -> None:
        while not await self._try_to_remove_all(path):  # noqa: ASYNC110 - nothing signals that it is back
            await asyncio.sleep(RETRY_S)

    async def _try_to_remove_all(self, path: str) -> bool:
        try:
            await self._remove_all(path)
        except ApiError:
            return False  # the watch of the same pods reports it
        return True

    async def _remove_all(self, path: str, *, field_selector: str = "") -> None:
        slices = Slices()
        async for page in list_retained(self._client, path, selector=SELECTOR, field_selector=field_selector):
            for metadata in page:
                self._remove(metadata)
                await slices.pause()

    def _remove(self, metadata: dict[str, object]) -> None:
        pod = read_pod({"metadata": metadata})
        if pod is not None:
            self._pods.remove(pod)
