"""Creates pods, and deletes objects until they are gone."""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from perllm.api import names
from perllm.cluster.client import ApiError, Client
from perllm.cluster.writes import Write, WriteQueue
from perllm.controller.dispatcher import Waiting
from perllm.controller.pods import build_pod
from perllm.controller.refusal import is_invalid, read_refusal
from perllm.controller.task import Task
from perllm.guard import describe
from perllm.scheduling.refusal import PodRefusal, RefusalCause

log = logging.getLogger(__name__)


class PodKeeper:
    """Carries out what the controller wants done about pods and finished tasks.

    Args:
        client: the API server.
        writes: the queue that carries everything there.
        scheduler_name: scheduler of the pods.
        on_taken: called when the name of a pod is taken already; returns whether by the very pod, as most often.
        on_invalid: called with the reason, in words, when the task's template can never become a pod.
    """

    def __init__(
        self,
        client: Client,
        writes: WriteQueue,
        *,
        scheduler_name: str,
        on_taken: Callable[[Waiting, str], bool],
        on_invalid: Callable[[Task, str], None],
    ) -> None:
        self._client = client
        self._writes = writes
        self._scheduler_name = scheduler_name
        self._on_taken = on_taken
        self._on_invalid = on_invalid

    async def create(self, waiting: Waiting) -> PodRefusal | None:
        """Create the pod of an attempt; return why it was refused if it may be created later."""
        task = waiting.task
        try:
            pod = build_pod(task, waiting.attempt, self._scheduler_name)
        except Exception as error:
            self._give_up(task, error)
            return None
        name = f"{task.namespace}/{pod['metadata']['name']}"
        try:
            await self._writes.once(Write("pod", name, partial(self._post, task.namespace, pod)))
        except ApiError as error:
            return self._judge(waiting, error)
        except TypeError as error:
            self._give_up(task, error)  # it cannot be written as JSON; whatever else breaks is no fault of the template
        return None

    def _give_up(self, task: Task, error: Exception) -> None:
        """End a task of whose template PerLLM itself can make nothing."""
        log.error("the pod of task %s cannot be made", task.key, exc_info=error)
        self._on_invalid(task, f"no pod can be made of it: {describe(error)}")

    def _judge(self, waiting: Waiting, error: ApiError) -> PodRefusal | None:
        task = waiting.task
        if is_invalid(error):
            self._on_invalid(task, f"the API server refused its pod: {error.message}")
            return None
        refusal = read_refusal(error)
        if refusal.cause is RefusalCause.NAME_TAKEN and self._on_taken(
            waiting, names.pod_name(task.name, waiting.attempt)
        ):
            return None
        return refusal

    async def _post(self, namespace: str, pod: dict[str, Any]) -> None:
        await self._client.post(f"/api/v1/namespaces/{namespace}/pods", pod, fieldValidation="Strict")

    def delete(self, path: str, uid: str) -> None:
        """Delete the object at `path`, if it still is the one with this uid; returns at once."""
        name = path.partition("/namespaces/")[2]
        self._writes.put(Write("deletion", name, partial(self._delete, path, uid)))

    async def _delete(self, path: str, uid: str) -> None:
        try:
            await self._client.delete(path, {"preconditions": {"uid": uid}, "propagationPolicy": "Background"})
        except ApiError as error:
            if error.is_transient:
                raise
            # Gone, or another object by now; whatever else refuses a deletion for good is worth a line.
            if error.status not in (404, 409):
                log.warning("%s not deleted: %s", path, error)
