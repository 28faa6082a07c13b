"""Removes pods of tasks that lost the label which the operator selects pods by, while no operator was there to see it.

A running operator sees such a pod vanish from its selection, and its task gets another pod. One that starts later would
never learn of it, and the finalizer would retain it for ever.
"""

import asyncio
from collections.abc import Sequence

from perllm.api import names
from perllm.cluster.client import Client
from perllm.cluster.pod import read_pod
from perllm.cluster.release import list_retained
from perllm.controller.pod_keeper import PodKeeper
from perllm.slices import Slices

SELECTOR = f"!{names.TASK_LABEL}"


class StrayPods:
    """Looks for stray pods once.

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
        """Release and delete all stray pods, then wait until cancelled.

        Raises:
            ApiError: pods cannot be listed.
        """
        slices = Slices()
        for path in self._paths:
            async for page in list_retained(self._client, path, selector=SELECTOR):
                for metadata in page:
                    self._remove(metadata)
                    await slices.pause()
        await asyncio.Event().wait()

    def _remove(self, metadata: dict[str, object]) -> None:
        pod = read_pod({"metadata": metadata})
        if pod is not None:
            self._pods.release(pod)
            self._pods.delete(f"{names.pods_path(pod.key.partition('/')[0])}/{pod.name}", pod.uid)
