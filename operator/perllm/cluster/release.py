"""Releases the pods of tasks for good: removes the finalizer that retains them, where no operator will do it any more.

An operator releases a pod once its end is recorded. Without one a deleted pod would never vanish.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

from perllm.api import names
from perllm.cluster.client import ApiError, Client, Object, PatchKind
from perllm.text import clean_line

PAGE_SIZE = "250"
POLL_S = 0.5
STOP_PATIENCE_S = 120.0
"""Longer than an operator takes to end: its grace period is 30 s by default."""

STOPPED = {"spec": {"replicas": 0}}


class ReleaseError(Exception):
    """Not everything could be released; what is left can be released by another attempt."""


def build_release(uid: str) -> Object:
    """Return the strategic merge patch of a pod's status that removes our finalizer and leaves those of others."""
    return {"metadata": {"uid": uid, "$deleteFromPrimitiveList/finalizers": [names.OUTCOME_FINALIZER]}}


async def release_pods(client: Client, namespaces: Sequence[str], *, report: Callable[[str], None]) -> None:
    """Release all pods that an operator retains.

    Args:
        client: the API server.
        namespaces: namespaces of the pods; all if empty.
        report: called with progress.

    Raises:
        ReleaseError: some pods could not be released.
        ApiError: pods cannot be listed.
    """
    released, failures = 0, list[Exception]()
    for path in map(names.pods_path, namespaces or (None,)):
        # Labels do not matter, since users may have removed them.
        async for pods in list_retained(client, path):
            results = await asyncio.gather(*(_release(client, pod) for pod in pods), return_exceptions=True)
            failures += [one for one in results if isinstance(one, Exception)]
            released += results.count(True)
            if pods:
                report(f"{released} pods released")
    if failures:
        raise ReleaseError(f"{len(failures)} pods are still retained, try again: {failures[0]}")
    report(f"done: {released} pods released, none is retained any more")


async def stop_deployment(client: Client, namespace: str, name: str, *, report: Callable[[str], None]) -> None:
    """Scale a Deployment to 0, and return when its pods are gone.

    Raises:
        ReleaseError: its pods do not end.
        ApiError: it cannot be scaled, or its pods cannot be listed.
    """
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale"
    selector = (await client.patch(path, STOPPED))["status"]["selector"]
    report(f"deployment {namespace}/{name} scaled to 0")
    left: list[Object] = []
    try:
        async with asyncio.timeout(STOP_PATIENCE_S):
            while True:
                left = (await client.get(names.pods_path(namespace), labelSelector=selector))["items"]
                if not left:
                    return
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        pods = clean_line(", ".join(pod["metadata"]["name"] for pod in left))
        raise ReleaseError(f"pods of deployment {namespace}/{name} have not ended: {pods}") from None


async def list_retained(
    client: Client, path: str, *, selector: str = "", field_selector: str = ""
) -> AsyncIterator[list[Object]]:
    """Yield the metadata of retained pods in pages.

    Args:
        client: the API server.
        path: API path of the pods.
        selector: of their labels; all pods if empty.
        field_selector: of their fields; all pods if empty.

    Raises:
        ApiError: they cannot be listed.
    """
    token = ""
    while True:
        query = {
            "limit": PAGE_SIZE,
            "continue": token,
            "labelSelector": selector,
            "fieldSelector": field_selector,
        }
        page = await client.list_metadata(path, **query)
        # A list of metadata that is empty has null for its items.
        found = [item["metadata"] for item in page["items"] or ()]
        yield [one for one in found if names.OUTCOME_FINALIZER in one.get("finalizers", ())]
        token = page["metadata"].get("continue", "")
        if not token:
            return


async def _release(client: Client, pod: Object) -> bool:
    """Release a pod; return False if it is gone."""
    path = f"{names.pods_path(pod['namespace'])}/{pod['name']}/status"
    try:
        await client.patch(path, build_release(pod["uid"]), kind=PatchKind.STRATEGIC)
    except ApiError as error:
        if error.status == 404:
            return False
        raise
    return True
