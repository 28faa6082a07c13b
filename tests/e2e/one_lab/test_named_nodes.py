"""Pods name the best nodes for them, and are replaced if they fit on none of these."""

from e2e.stage import Stage, wait_until
from perllm.api import names
from perllm.cluster.client import Object, PatchKind
from perllm.settings.tasks import PodSettings

CORES = "3"


def named_by(pod: Object) -> list[str]:
    return [name for name in pod["metadata"]["annotations"].get(names.NAMED_NODES_ANNOTATION, "").split(",") if name]


def required_names(pod: Object) -> list[str]:
    required = pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    return [name for term in required["nodeSelectorTerms"] for field in term["matchFields"] for name in field["values"]]


def message_of(pod: Object) -> str:
    conditions = pod["status"].get("conditions", ())
    return next((one.get("message", "") for one in conditions if one["type"] == "PodScheduled"), "")


async def test_a_pod_is_placed_on_a_node_that_it_names(stage: Stage) -> None:
    tasks = await stage.wait_all_final(await stage.create_many("t", 5))
    for name, task in tasks.items():
        pod = stage.seen[f"{name}-1"][-1]
        assert 1 <= len(named_by(pod)) <= PodSettings().named_nodes
        assert required_names(pod) == named_by(pod)
        assert pod["spec"]["nodeName"] in named_by(pod)
        assert task["status"]["phase"] == "Succeeded"


async def test_a_pod_that_fits_on_none_of_its_nodes_is_replaced_and_is_no_attempt(stage: Stage) -> None:
    nodes = [node.name for node in stage.lab.scenario.nodes()]
    before = {item["metadata"]["name"]: item for item in (await stage.lab.client.get("/api/v1/nodes"))["items"]}
    replaced = await stage.metric("perllm_pods_replaced_total")
    await _leave_cores(stage, dict.fromkeys(nodes, "1"))
    await stage.create("wide", containers=[_container()])

    async def is_replaced() -> bool:
        pod = (await stage.pods()).get("wide-1")
        return pod is not None and not named_by(pod)

    await wait_until(is_replaced, timeout_s=30, describe=lambda: str(stage.seen["wide-1"][-1:]))
    await _leave_cores(stage, {nodes[0]: before[nodes[0]]["status"]["allocatable"]["cpu"]})
    task = await stage.wait_final("wide", timeout_s=60)
    # In kube-scheduler's words: the nodes that are not named were not even filtered.
    assert any("didn't satisfy plugin(s) [NodeAffinity]" in message_of(pod) for pod in stage.seen["wide-1"])
    uids = {pod["metadata"]["uid"] for pod in stage.seen["wide-1"]}
    assert (task["status"]["phase"], task["status"]["nodeName"]) == ("Succeeded", nodes[0])
    assert (task["status"]["attempts"], task["status"].get("failedAttempts")) == (1, None)
    assert (len(uids), list(stage.seen)) == (2, ["wide-1"])
    assert stage.completed_runs() == {"wide": 1}
    assert await stage.metric("perllm_pods_replaced_total") == replaced + 1
    await _leave_cores(stage, {name: before[name]["status"]["allocatable"]["cpu"] for name in nodes})


async def _leave_cores(stage: Stage, cores: dict[str, str]) -> None:
    """Set how many processors the pods on nodes may request; PerLLM leaves that to kube-scheduler."""
    for node, count in cores.items():
        patch = {"status": {"allocatable": {"cpu": count}}}
        await stage.lab.client.patch(f"/api/v1/nodes/{node}/status", patch, kind=PatchKind.STRATEGIC)


def _container() -> Object:
    resources = {"limits": {names.GPU_RESOURCE: "1"}, "requests": {"cpu": CORES}}
    return {"name": "llm", "image": "llm", "resources": resources}
