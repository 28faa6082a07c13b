"""Creates pods and releases them, and deletes objects until they are gone."""

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

from perllm.api import names
from perllm.cluster.client import ApiError, Client, PatchKind
from perllm.cluster.pod import Pod
from perllm.cluster.release import build_release
from perllm.cluster.writes import Write, WriteQueue
from perllm.controller.denial import is_invalid, read_denial
from perllm.controller.pods import build_pod
from perllm.controller.runner_pods import RunnerPods
from perllm.controller.task import Task
from perllm.guard import describe
from perllm.scheduling.denial import DenialCause, PodDenial

log = logging.getLogger(__name__)


class InvalidTemplateError(ValueError):
    """No pod can ever be created from a task's template; the message says why."""


class PodKeeper:
    """Creates and releases pods, and deletes pods and expired tasks.

    Args:
        client: the API server.
        writes: the queue that carries everything there.
        scheduler_name: scheduler of the pods.
        runners: makes the templates of runner pods.
    """

    def __init__(self, client: Client, writes: WriteQueue, *, scheduler_name: str, runners: RunnerPods) -> None:
        self._client = client
        self._writes = writes
        self._scheduler_name = scheduler_name
        self._runners = runners

    async def create(
        self, task: Task, attempt: int, node: str | None, *, named: Sequence[str] = ()
    ) -> PodDenial | None:
        """Create the pod of an attempt at a task; if it was denied for now, return why.

        Args:
            task: the task.
            attempt: number of the attempt.
            node: the node that it is meant for.
            named: nodes that it is narrowed to; none if it may be placed on any.

        Raises:
            InvalidTemplateError: the pod can never be created.
        """
        spec = task.valid_spec
        try:
            template = self._runners.build_template(spec, node) if spec.is_served else None
            pod = build_pod(task, attempt, self._scheduler_name, named=named, runner_template=template)
        except Exception as error:
            raise _give_up(task, error) from error
        name = f"{task.namespace}/{pod['metadata']['name']}"
        try:
            await self._writes.once(Write("pod", name, partial(self._post, task.namespace, pod)))
        except ApiError as error:
            if is_invalid(error) and spec.is_served:
                # The configuration is wrong, not the task, and can be corrected.
                return PodDenial(DenialCause.FORBIDDEN, error.message)
            if is_invalid(error):
                raise InvalidTemplateError(f"the API server denied its pod: {error.message}") from error
            return read_denial(error)
        except TypeError as error:
            raise _give_up(task, error) from error  # it cannot be written as JSON
        return None

    async def _post(self, namespace: str, pod: dict[str, Any]) -> None:
        await self._client.post(f"/api/v1/namespaces/{namespace}/pods", pod, fieldValidation="Strict")

    def release(self, pod: Pod) -> None:
        """Remove our finalizer from a pod; returns at once. Finalizers of others are kept."""
        self._writes.put(Write("release", pod.key, partial(self._release, pod)))

    async def _release(self, pod: Pod) -> None:
        path = f"{_pod_path(pod)}/status"
        try:
            await self._client.patch(path, build_release(pod.uid), kind=PatchKind.STRATEGIC)
        except ApiError as error:
            if error.is_transient:
                raise
            # 404, 409 or 422: gone, or another pod by now.
            if error.status not in (404, 409, 422):
                log.warning("%s not released: %s", path, error)

    def remove(self, pod: Pod) -> None:
        """Release a pod and delete it: it belongs to no task any more. Returns at once."""
        self.release(pod)
        self.delete_pod(pod)

    def delete_pod(self, pod: Pod) -> None:
        """Delete a pod; returns at once. A retained pod remains until it is released.

        A misfit is deleted only if it has not changed, since kube-scheduler may have placed it in the meantime.
        """
        self.delete(_pod_path(pod), pod.uid, version=pod.misfit.version if pod.misfit else "")

    def delete(self, path: str, uid: str, *, version: str = "") -> None:
        """Delete the object at `path` if it still has this uid, and this version if one is given; returns at once."""
        name = path.partition("/namespaces/")[2]
        unchanged = {"uid": uid, **({"resourceVersion": version} if version else {})}
        self._writes.put(Write("deletion", name, partial(self._delete, path, unchanged)))

    async def _delete(self, path: str, preconditions: dict[str, str]) -> None:
        try:
            await self._client.delete(path, {"preconditions": preconditions, "propagationPolicy": "Background"})
        except ApiError as error:
            if error.is_transient:
                raise
            # 404 or 409: gone, or another object by now. Any other lasting obstacle is worth a log line.
            if error.status not in (404, 409):
                log.warning("%s not deleted: %s", path, error)


def _pod_path(pod: Pod) -> str:
    return f"{names.pods_path(pod.key.partition('/')[0])}/{pod.name}"


def _give_up(task: Task, error: Exception) -> InvalidTemplateError:
    """Log that PerLLM itself cannot make a pod from a template."""
    log.error("the pod of task %s cannot be made", task.key, exc_info=error)
    return InvalidTemplateError(f"no pod can be made from it: {describe(error)}")
