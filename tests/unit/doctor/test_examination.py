"""An examination as a whole, by what a fake API server lets it read."""

from typing import Any
from weakref import WeakSet

from perllm.api import names
from perllm.cluster.client import ApiError
from perllm.config import Config
from perllm.doctor.examination import Examination
from unit.doctor.cluster_objects import NOW_S, Object, make_item, make_node, make_own_pod

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


class Whole(dict[str, Any]):
    """An object as the API server returns it, of which one can know whether it is kept."""

    __hash__ = object.__hash__


class LargeApi(ReadOnlyApi):
    """A cluster with tasks and pods on many pages, which notes the most whole objects that were kept at a time."""

    PAGES = 20

    def __init__(self) -> None:
        super().__init__(make_own_pod())
        self.most_kept = 0
        self._kept: WeakSet[Whole] = WeakSet()

    async def get(self, path: str, **query: Any) -> Object:
        if path not in (names.tasks_path(), names.pods_path()):
            return await super().get(path)
        self.most_kept = max(self.most_kept, len(self._kept))
        number = int(query["continue"] or 0)
        phase = ("Pending", "Running", "Succeeded")[number % 3]
        item = Whole(make_item(f"t-{number}", age_s=400.0, spec={"nodeName": "n"}, status={"phase": phase}))
        self._kept.add(item)
        following = str(number + 1) if number + 1 < self.PAGES else ""
        return {"items": [item], "metadata": {"continue": following}}


async def test_of_many_tasks_and_pods_it_keeps_no_more_than_a_page() -> None:
    client = LargeApi()
    findings = await examine(client, Config())
    assert "ok   pods of tasks: 20, all are scheduled and starting" in findings
    assert [one for one in findings if "tasks: 7 of namespace a are waiting, the first one for 400 s" in one]
    assert client.most_kept == 1


async def examine(client: ReadOnlyApi, config: Config = SHADOW) -> list[str]:
    examination = Examination(
        client,  # type: ignore[arg-type]
        "https://server",
        None,  # type: ignore[arg-type]
        config,
        "home",
        None,
        lambda: NOW_S,
        has_prometheus=False,
    )
    return [str(one) async for one in examination.run()]


async def test_shadow_mode_needs_neither_a_kube_scheduler_nor_rights_to_tasks() -> None:
    findings = await examine(ReadOnlyApi(make_shadow_pod()))

    assert "ok   pods of PerLLM: operator of perllm-1 is ready" in findings
    assert "ok   tasks: not served in shadow mode" in findings
    assert [one for one in findings if "not checked" in one] == []
