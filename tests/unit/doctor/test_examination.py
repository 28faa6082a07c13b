"""An examination as a whole, by what a fake API server lets it read."""

from typing import Any

from perllm.cluster.client import ApiError
from perllm.config import Config
from perllm.doctor.examination import Examination
from unit.doctor.cluster_objects import Object, make_node, make_own_pod

SHADOW = Config(mode="shadow")


class ReadOnlyApi:
    """A cluster with a labelled node and one pod of PerLLM, whose account may read no tasks."""

    def __init__(self, pod: Object) -> None:
        self._lists: dict[str, list[Object]] = {
            "/api/v1/nodes": [make_node("n", perllm__io__tier="edge")],
            "/api/v1/namespaces/home/pods": [pod],
        }

    async def get(self, path: str, **_: Any) -> Object:
        if path == "/version":
            return {"gitVersion": "v1.37.2", "major": "1", "minor": "37"}
        if "llminferencetasks" in path:
            raise ApiError(403, "Forbidden", "tasks are forbidden")
        if path.startswith(("/openapi", "/apis/resource.k8s.io")):
            raise ApiError(404, "NotFound", "nothing there")
        return {"items": self._lists.get(path, []), "metadata": {}}

    async def post(self, *_: Any) -> Object:
        return {"status": {"allowed": True}}


def make_shadow_pod() -> Object:
    pod = make_own_pod(ready=("operator",))
    pod["spec"]["containers"] = [{"name": "operator"}]
    return pod


async def examine(client: ReadOnlyApi) -> list[str]:
    examination = Examination(
        client,  # type: ignore[arg-type]
        "https://server",
        None,  # type: ignore[arg-type]
        SHADOW,
        "home",
        None,
        lambda: 0.0,
        has_prometheus=False,
    )
    return [str(one) async for one in examination.run()]


async def test_shadow_mode_needs_neither_a_kube_scheduler_nor_rights_to_tasks() -> None:
    findings = await examine(ReadOnlyApi(make_shadow_pod()))

    assert "ok   pods of PerLLM: operator of perllm-1 is ready" in findings
    assert "ok   tasks: not served in shadow mode" in findings
    assert [one for one in findings if "not checked" in one] == []
