from typing import Any

import pytest

from perllm.api import names
from perllm.cluster.client import ApiError, Object
from perllm.cluster.release import ReleaseError, release_pods, stop_deployment

pytestmark = pytest.mark.looptime

OURS = names.OUTCOME_FINALIZER


class Api:
    """Pods in pages of two, and a Deployment whose pods end after some polls."""

    def __init__(self, pods: dict[str, list[str]]) -> None:
        self.pods = pods
        self.errors: dict[str, ApiError] = {}
        self.polls_left = 0

    async def get(self, path: str, **query: Any) -> Object:
        assert (path, query["labelSelector"]) == ("/api/v1/namespaces/home/pods", "app=perllm")
        self.polls_left -= 1
        return {"items": [{"metadata": {"name": "perllm-1"}}] * (self.polls_left > 0)}

    async def list_metadata(self, path: str, **query: Any) -> Object:
        start = int(query["continue"] or 0)
        metadata = [
            {"namespace": "team", "name": name, "uid": f"uid-{name}", "finalizers": finalizers}
            for name, finalizers in self.pods.items()
        ]
        token = str(start + 2) if start + 2 < len(metadata) else ""
        return {"items": [{"metadata": one} for one in metadata[start : start + 2]], "metadata": {"continue": token}}

    async def patch(self, path: str, body: Object, *, kind: str = "merge") -> Object:
        if path == "/apis/apps/v1/namespaces/home/deployments/perllm/scale":
            assert body == {"spec": {"replicas": 0}}
            return {"status": {"selector": "app=perllm"}}
        name = path.removeprefix("/api/v1/namespaces/team/pods/").removesuffix("/status")
        assert kind == "application/strategic-merge-patch+json"
        assert body == {"metadata": {"uid": f"uid-{name}", "$deleteFromPrimitiveList/finalizers": [OURS]}}
        if name in self.errors:
            raise self.errors[name]
        self.pods[name].remove(OURS)
        return {}


async def release(api: Api) -> list[str]:
    reports: list[str] = []
    await release_pods(api, ["team"], report=reports.append)  # type: ignore[arg-type]
    return reports


async def test_pods_of_all_pages_are_released() -> None:
    api = Api({"a": [OURS], "b": ["example.com/held"], "c": [], "d": ["example.com/held", OURS], "e": [OURS]})

    reports = await release(api)

    assert [name for name, finalizers in api.pods.items() if OURS in finalizers] == []
    assert reports == [
        "1 pods released",
        "2 pods released",
        "3 pods released",
        "done: 3 pods released, none is retained any more",
    ]


async def test_a_pod_that_vanishes_meanwhile_is_no_failure() -> None:
    api = Api({"a": [OURS], "b": [OURS]})
    api.errors["a"] = ApiError(404, "NotFound", "gone")

    assert (await release(api))[-1] == "done: 1 pods released, none is retained any more"


async def test_a_pod_that_cannot_be_released_is_reported_after_the_others_are() -> None:
    api = Api({"a": [OURS], "b": [OURS], "c": [OURS]})
    api.errors["a"] = ApiError(403, "Forbidden", "no right")

    with pytest.raises(ReleaseError, match="1 pods are still retained, try again: 403 Forbidden: no right"):
        await release(api)

    assert [name for name, finalizers in api.pods.items() if OURS in finalizers] == ["a"]


async def test_a_deployment_is_stopped_when_its_pods_are_gone() -> None:
    api = Api({})
    api.polls_left = 20

    await stop_deployment(api, "home", "perllm", report=lambda text: None)  # type: ignore[arg-type]

    assert api.polls_left == 0


async def test_pods_that_do_not_end_are_named() -> None:
    api = Api({})
    api.polls_left = 10**6

    with pytest.raises(ReleaseError, match="pods of deployment home/perllm have not ended: perllm-1"):
        await stop_deployment(api, "home", "perllm", report=lambda text: None)  # type: ignore[arg-type]
