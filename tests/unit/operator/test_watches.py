"""What the metrics show of what the operator watches."""

import asyncio
from collections.abc import Iterable
from typing import Any

from prometheus_client import CollectorRegistry

from perllm.api import names
from perllm.cluster.credentials import Credentials
from perllm.cluster.informer import Informer
from perllm.cluster.times import format_time
from perllm.config import Config
from perllm.watches import Watches
from perllm.wiring import Wiring
from unit.cluster.fake_api import FakeApiServer
from unit.extender.test_unbound_pods import pod_object

NOBODY = Credentials("http://127.0.0.1:9", None, None, None, lambda: None)
AGENTS = "perllm-system"
NODE = {
    "metadata": {"name": "n", "uid": "uid-n", "labels": {names.TIER_LABEL: "edge"}},
    "status": {"allocatable": {"nvidia.com/gpu": "1"}, "conditions": [{"type": "Ready", "status": "True"}]},
}


async def list_once(informers: Iterable[Informer[Any]]) -> None:
    """Have informers process their first lists, one after the other."""
    for informer in informers:
        running = asyncio.create_task(informer.run())
        async with asyncio.timeout(5):
            await informer.synced.wait()
        running.cancel()


def build(api: FakeApiServer, registry: CollectorRegistry) -> Watches:
    config = Config.model_validate({"agents": {"lease_namespace": AGENTS}})
    return Wiring(config, api, NOBODY, registry).watches  # type: ignore[arg-type]


async def test_pods_of_tasks_and_annotated_pods_without_a_node_are_counted() -> None:
    api, registry = FakeApiServer(), CollectorRegistry()
    owner = {"kind": names.TASK_KIND, "name": "t", "uid": "uid-t"}
    labels = {names.TASK_LABEL: "t", names.ATTEMPT_LABEL: "1"}
    api.store("/api/v1/pods/t-1", **pod_object("t-1", labels=labels, ownerReferences=[owner]))
    api.store("/api/v1/pods/own", **pod_object("own", annotations={names.MODEL_ANNOTATION: "m"}))
    watches = build(api, registry)

    await list_once(watches.all_pods)

    assert registry.get_sample_value("perllm_pods_unbound", {"answer": "Missing"}) == 2


async def test_agents_of_nodes_of_the_fleet_are_counted() -> None:
    api, registry = FakeApiServer(), CollectorRegistry()
    spec = {"renewTime": format_time(4e9), "leaseDurationSeconds": 30}
    for node in ("n", "former"):
        name = f"{names.AGENT_LEASE_PREFIX}{node}"
        api.store(names.lease_path(AGENTS, name), metadata={"name": name}, spec=spec)
    api.store("/api/v1/nodes/n", **NODE)
    watches = build(api, registry)
    assert watches.agents is not None

    await list_once([watches.nodes, watches.agents.leases])

    assert registry.get_sample_value("perllm_agents", {"alive": "true"}) == 1
    assert registry.get_sample_value("perllm_agents", {"alive": "false"}) == 0
