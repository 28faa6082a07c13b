"""Creates and deletes objects on the API server, again until it is done or can never be."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from perllm.cluster.client import ApiError, Client
from perllm.controller.dispatcher import Waiting
from perllm.controller.pods import build_pod
from perllm.controller.task import Task

log = logging.getLogger(__name__)

RETRY_S = 1.0


class PodKeeper:
    """Carries out what the controller wants done about pods and finished tasks.

    Args:
        client: the API server.
        scheduler_name: scheduler of the pods.
        on_taken: called when the name of a pod is taken already; most often by the very pod.
        on_invalid: called with the API server's words when it will never accept the pod.
        on_postponed: called with the reason when the pod has to be tried again.
    """

    def __init__(
        self,
        client: Client,
        *,
        scheduler_name: str,
        on_taken: Callable[[Waiting, str], bool],
        on_invalid: Callable[[Task, str], None],
        on_postponed: Callable[[Waiting, str], None],
    ) -> None:
        self._client = client
        self._scheduler_name = scheduler_name
        self._on_taken = on_taken
        self._on_invalid = on_invalid
        self._on_postponed = on_postponed
        self._background: set[asyncio.Task[None]] = set()

    async def create(self, waiting: Waiting) -> None:
        """Create the pod of an attempt; every failure is reported, none is raised."""
        task = waiting.task
        pod = build_pod(task, waiting.attempt, self._scheduler_name)
        name = pod["metadata"]["name"]
        try:
            await self._client.post(f"/api/v1/namespaces/{task.namespace}/pods", pod)
        except ApiError as error:
            if error.status == 409 and self._on_taken(waiting, name):
                return
            if error.status in (400, 422):
                self._on_invalid(task, error.message)
                return
            log.warning("pod %s of task %s not created, trying again: %s", name, task.key, error)
            await asyncio.sleep(max(RETRY_S, error.retry_after_s))
            self._on_postponed(waiting, f"pod {name} could not be created, trying again: {error.message}")

    def delete(self, path: str, uid: str) -> None:
        """Delete the object at `path`, if it still is the one with this uid; returns at once."""
        self._spawn(self._delete(path, uid))

    async def _delete(self, path: str, uid: str) -> None:
        while True:
            try:
                await self._client.delete(path, {"preconditions": {"uid": uid}, "propagationPolicy": "Background"})
                return
            except ApiError as error:
                if not error.is_transient:
                    if error.status not in (404, 409):
                        log.warning("%s not deleted: %s", path, error)
                    return
            await asyncio.sleep(RETRY_S)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
