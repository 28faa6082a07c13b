"""Creates pods, and deletes objects until they are gone."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from perllm.cluster.client import ApiError, Client
from perllm.controller.dispatcher import Waiting
from perllm.controller.pods import build_pod, pod_name
from perllm.controller.refusal import Cause, Refusal, is_invalid, read_refusal
from perllm.controller.task import Task
from perllm.guard import describe
from perllm.text import clean_line

log = logging.getLogger(__name__)

RETRY_S = 1.0


class PodKeeper:
    """Carries out what the controller wants done about pods and finished tasks.

    Args:
        client: the API server.
        scheduler_name: scheduler of the pods.
        on_taken: called when the name of a pod is taken already; returns whether by the very pod, as most often.
        on_invalid: called with the reason, in words, when the task's template can never become a pod.
    """

    def __init__(
        self,
        client: Client,
        *,
        scheduler_name: str,
        on_taken: Callable[[Waiting, str], bool],
        on_invalid: Callable[[Task, str], None],
    ) -> None:
        self._client = client
        self._scheduler_name = scheduler_name
        self._on_taken = on_taken
        self._on_invalid = on_invalid
        self._background: set[asyncio.Task[None]] = set()

    async def create(self, waiting: Waiting) -> Refusal | None:
        """Create the pod of an attempt; return why it was refused if it may be created later. Raises nothing."""
        task = waiting.task
        try:
            pod = build_pod(task, waiting.attempt, self._scheduler_name)
            await self._client.post(f"/api/v1/namespaces/{task.namespace}/pods", pod, fieldValidation="Strict")
        except ApiError as error:
            return self._judge(waiting, error)
        except Exception as error:
            # No answer of the API server: PerLLM itself can make nothing of the template.
            log.exception("the pod of task %s cannot be made", task.key)
            self._on_invalid(task, f"no pod can be made of it: {describe(error)}")
        return None

    def _judge(self, waiting: Waiting, error: ApiError) -> Refusal | None:
        task = waiting.task
        if is_invalid(error):
            self._on_invalid(task, f"the API server refused its pod: {clean_line(error.message)}")
            return None
        refusal = read_refusal(error)
        if refusal.cause is Cause.NAME_TAKEN and self._on_taken(waiting, pod_name(task, waiting.attempt)):
            return None
        return refusal

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
