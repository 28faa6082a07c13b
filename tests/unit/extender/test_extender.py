"""The answers to kube-scheduler over HTTP."""

from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import CollectorRegistry

from perllm.api import names
from perllm.cluster.client import ApiError, ApiUnreachableError
from perllm.extender.extender import Extender
from perllm.extender.protocol import Unplaceable
from perllm.extender.retries import Retries
from perllm.extender.server import build_app
from perllm.metrics import OperatorMetrics
from perllm.placement.decision import read_record
from perllm.placement.request import PlacementRequest
from unit.cluster.fake_api import FakeApiServer
from unit.cluster.queues import make_guard, make_writes
from unit.placement.cluster_of import make_node, make_request
from unit.scheduling.schedulers import Made, make_scheduler

NODES = ["a", "b"]


class Setting:
    """An extender over nodes a and b with a slot each.

    It knows the tasks of pods whose names begin with t; a pod whose name begins with u may go nowhere, nor may one that
    begins with x, which it does not watch.
    """

    def __init__(
        self,
        http: TestClient,
        made: Made,
        api: FakeApiServer,
        registry: CollectorRegistry,
        records: dict[str, str],
        retries: Retries,
    ) -> None:
        self.http = http
        self.retries = retries
        self.scheduler, self.parts = made.scheduler, made.parts
        self.api = api
        self.registry = registry
        self.records = records

    async def call(self, verb: str, arguments: Any) -> Any:
        answer = await self.http.post(f"/{verb}", json=arguments)
        assert answer.status == 200
        return await answer.json()

    async def filter(self, pod: str = "t1", nodes: list[str] | None = None) -> Any:
        return await self.call("filter", {"Pod": pod_of(pod), "NodeNames": NODES if nodes is None else nodes})

    async def prioritize(self, pod: str = "t1", nodes: list[str] | None = None) -> dict[str, int]:
        answer = await self.call("prioritize", {"Pod": pod_of(pod), "NodeNames": NODES if nodes is None else nodes})
        return {one["Host"]: one["Score"] for one in answer}

    async def bind(self, pod: str = "t1", node: str = "a") -> str:
        arguments = {"PodName": pod, "PodNamespace": "lab", "PodUID": f"uid-{pod}", "Node": node}
        error: str = (await self.call("bind", arguments))["Error"]
        return error

    def errors(self, verb: str) -> float:
        return self.registry.get_sample_value("perllm_extender_errors_total", {"verb": verb}) or 0.0


def pod_of(name: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "lab", "uid": f"uid-{name}"}}


@pytest.fixture
async def setting() -> AsyncIterator[Setting]:
    made = make_scheduler(*(make_node(name, slots=1) for name in NODES), now_s=lambda: 1000.0)

    def request_of(pod: dict[str, Any]) -> PlacementRequest | Unplaceable | None:
        name = pod["metadata"]["name"]
        if name.startswith("u"):
            return Unplaceable("annotation perllm.io/model is missing")
        if name.startswith("x"):
            return Unplaceable("not one of config.namespaces", is_watched=False)
        return make_request(f"task-{name}") if name.startswith("t") else None

    api, registry = FakeApiServer(), CollectorRegistry()
    records: dict[str, str] = {}
    retries = Retries(
        api,  # type: ignore[arg-type]
        make_writes(),
        has_room=lambda request: made.scheduler.consider(request).node is not None,
        guard=make_guard(),
        now_s=lambda: 1000.0,
        unix_now=lambda: 1000.0,
    )
    extender = Extender(
        made.scheduler,
        made.parts.ledger,
        api,  # type: ignore[arg-type]
        request_of=request_of,
        retries=retries,
        note_bound=lambda uid, _, record: records.__setitem__(uid, record),
        note_denied=lambda uid: records.pop(uid, None),
    )
    async with TestClient(TestServer(build_app(extender, OperatorMetrics(registry), make_guard()))) as http:
        yield Setting(http, made, api, registry, records, retries)


def in_flight(setting: Setting) -> list[float]:
    running: list[float] = setting.parts.ledger.loads(np.arange(2), 0.0).running.tolist()
    return running


async def test_a_pod_is_filtered_scored_and_bound_with_its_decision(setting: Setting) -> None:
    answer = await setting.filter()
    assert answer["Error"] == ""
    (node,) = answer["NodeNames"]
    assert (await setting.prioritize())[node] == 10
    assert await setting.bind(node=node) == ""
    ((path, binding),) = setting.api.calls_of("POST")
    assert path == "/api/v1/namespaces/lab/pods/t1/binding"
    assert (binding["kind"], binding["metadata"]["uid"], binding["target"]["name"]) == ("Binding", "uid-t1", node)
    record = binding["metadata"]["annotations"][names.DECISION_ANNOTATION]
    decision = read_record(record)
    assert (decision.task_id, decision.node) == ("task-t1", node)
    assert setting.records == {"uid-t1": record}
    assert sum(in_flight(setting)) == 1


async def test_a_burst_sees_the_pods_before_it_although_none_is_bound(setting: Setting) -> None:
    await setting.filter("t1")
    (second,) = (await setting.filter("t2"))["NodeNames"]
    third = await setting.filter("t3")
    assert in_flight(setting) == [1, 1]
    assert second in NODES
    assert (third["NodeNames"], sorted(third["FailedNodes"])) == ([], NODES)


async def test_filtering_a_pod_again_does_not_count_it_twice(setting: Setting) -> None:
    (node,) = (await setting.filter())["NodeNames"]
    for _ in range(2):
        assert (await setting.filter())["NodeNames"] == [node]
    assert sum(in_flight(setting)) == 1


@pytest.mark.parametrize("node", NODES)
async def test_the_node_that_is_bound_counts_whichever_was_chosen(setting: Setting, node: str) -> None:
    await setting.filter()
    assert await setting.bind(node=node) == ""
    record = setting.api.calls_of("POST")[0][1]["metadata"]["annotations"][names.DECISION_ANNOTATION]
    assert read_record(record).node == node
    assert in_flight(setting) == [float(one == node) for one in NODES]


@pytest.mark.parametrize(
    "error", [ApiError(409, "Conflict", "pod t1 is already assigned"), ApiUnreachableError("gone")]
)
async def test_a_binding_that_failed_frees_the_node_and_is_reported(setting: Setting, error: ApiError) -> None:
    setting.api.failures = [error]
    await setting.filter()
    assert error.message in await setting.bind()
    assert in_flight(setting) == [0, 0]
    assert setting.errors("bind") == 1
    await setting.filter()
    assert await setting.bind() == ""


async def test_a_task_that_is_deleted_while_its_pod_is_bound_leaves_nothing_in_flight(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def delete_task(*_: Any, **__: Any) -> None:
        setting.scheduler.end("task-t1", "a")

    monkeypatch.setattr(setting.api, "post", delete_task)
    await setting.filter()
    assert await setting.bind() == ""
    assert in_flight(setting) == [0, 0]


async def test_a_record_is_forgotten_if_its_binding_is_denied_but_not_if_the_answer_is_lost(setting: Setting) -> None:
    """The binding whose answer was lost may have been carried out; a later one is then denied."""
    for error, remembered in ((ApiUnreachableError("gone"), ["uid-t1"]), (ApiError(409, "Conflict", "assigned"), [])):
        await setting.filter()
        setting.api.failures.append(error)
        await setting.bind(node=NODES[0])
        assert list(setting.records) == remembered


async def test_the_next_attempt_at_a_task_keeps_its_place_when_the_binding_of_an_earlier_one_returns(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def end_and_retry(path: str, body: Any, **_: Any) -> None:
        setting.scheduler.end("task-t1", "a")
        setting.scheduler.decide(make_request("task-t1"), ["b"])

    await setting.filter(nodes=["a"])
    monkeypatch.setattr(setting.api, "post", end_and_retry)
    assert await setting.bind(node="a") == ""
    assert in_flight(setting) == [0, 1]
    assert not setting.parts.ledger.confirmed


async def test_a_pod_without_a_decision_is_not_bound(setting: Setting) -> None:
    assert "PerLLM has no decision for pod t1" in await setting.bind()
    await setting.filter()
    assert "no decision" in await setting.bind(node="unknown")
    await setting.filter()
    setting.scheduler.remove_node("a")
    assert "no decision" in await setting.bind(node="a")
    assert setting.api.calls == []


async def test_a_pod_of_no_task_is_an_error_that_says_what_to_do(setting: Setting) -> None:
    answer = await setting.filter("stranger")
    assert answer["NodeNames"] == []
    assert "pod lab/stranger belongs to no LLMInferenceTask" in answer["Error"]
    assert set((await setting.prioritize("stranger")).values()) == {0}


async def test_having_no_nodes_to_choose_from_is_not_an_error(setting: Setting) -> None:
    answer = await setting.filter(nodes=[])
    assert (answer["NodeNames"], answer["Error"]) == ([], "")
    assert (await setting.call("filter", {"Pod": pod_of("t1"), "NodeNames": None}))["Error"] == ""


@pytest.mark.parametrize("verb", ["filter", "prioritize", "bind"])
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"{}", b'{"Pod": 5}', b'{"Pod": {"metadata": []}}'])
async def test_a_malformed_call_is_answered_and_counted_once(setting: Setting, verb: str, body: bytes) -> None:
    answer = await setting.http.post(f"/{verb}", data=body)
    assert answer.status == 200
    content = await answer.json()
    if verb == "prioritize":
        assert content == []
    else:
        assert "cannot read" in content["Error"]
    assert setting.errors(verb) == 1


async def test_a_pod_that_got_no_node_waits_to_be_retried_until_it_may_get_one(setting: Setting) -> None:
    await setting.filter("t1")
    await setting.filter("t2")
    await setting.filter("t3")
    assert [f"uid-t{number}" in setting.retries for number in (1, 2, 3)] == [False, False, True]
    setting.scheduler.cancel("task-t1")
    assert (await setting.filter("t3"))["NodeNames"]
    assert "uid-t3" not in setting.retries


async def test_a_pod_that_may_go_nowhere_says_why_and_waits_for_a_change_of_it(setting: Setting) -> None:
    answer = await setting.filter("u1")
    assert answer["FailedAndUnresolvableNodes"]["a"] == "excluded by PerLLM: annotation perllm.io/model is missing"
    assert (answer["Error"], setting.errors("filter")) == ("", 0)
    assert "uid-u1" in setting.retries


async def test_a_pod_that_is_not_watched_is_not_remembered(setting: Setting) -> None:
    answer = await setting.filter("x1")
    assert "not one of config.namespaces" in answer["FailedAndUnresolvableNodes"]["a"]
    assert "uid-x1" not in setting.retries
