import asyncio
from random import Random
from typing import Any, cast

import pytest

from perllm.agent.addresses import ServerAddress
from perllm.agent.discovery import ServerPods, read_pod_address
from perllm.cluster.client import Client
from perllm.cluster.outages import Outages
from unit.cluster.fake_api import FakeApiServer
from unit.cluster.queues import make_guard


def pod(*, ip: str = "10.0.0.7", annotation: str | None = None, **changes: Any) -> dict[str, Any]:
    ports = [{"name": "metrics", "containerPort": 9090}, {"name": "http", "containerPort": 8000}]
    annotations = {} if annotation is None else {"perllm.io/server-port": annotation}
    return {
        "metadata": {"name": "p", "annotations": annotations, "labels": {"perllm.io/server": "true"}},
        "spec": {"containers": [{"name": "sidecar"}, {"name": "server", "ports": ports}]},
        "status": {"phase": "Running", "podIP": ip},
        **changes,
    }


def test_a_pod_is_asked_at_the_port_called_http_or_the_one_in_its_annotation() -> None:
    assert read_pod_address(pod()) == ServerAddress("http://10.0.0.7:8000/v1", is_in_pod=True)
    assert read_pod_address(pod(annotation="30000")) == ServerAddress("http://10.0.0.7:30000/v1", is_in_pod=True)
    assert read_pod_address(pod(ip="fd00::7")) == ServerAddress("http://[fd00::7]:8000/v1", is_in_pod=True)


@pytest.mark.parametrize(
    "item",
    [
        pod(annotation="80/admin"),
        pod(annotation="0"),
        pod(annotation="99999"),
        pod(status={"phase": "Failed", "podIP": "10.0.0.7"}),
        pod(status={"phase": "Running"}),
        pod(spec={"containers": [{"name": "server"}]}),
        pod(metadata={"name": "p", "deletionTimestamp": "2026-01-01T00:00:00Z"}),
    ],
)
def test_a_pod_without_an_address_is_no_server(item: dict[str, Any]) -> None:
    assert read_pod_address(item) is None


@pytest.mark.looptime
async def test_labelled_pods_of_the_node_are_found_in_the_listed_namespaces_only() -> None:
    api = FakeApiServer()
    for namespace in ("platform", "tenant"):
        api.store(f"/api/v1/namespaces/{namespace}/pods/p", **pod())
    changes: list[int] = []
    pods = ServerPods(
        cast(Client, api),
        "n",
        ["platform"],
        lambda: changes.append(1),
        guard=make_guard(),
        outages=Outages(asyncio.get_running_loop().time),
        rng=Random(0),
    )
    running = [asyncio.create_task(one.run()) for one in pods.informers]
    await pods.wait()

    assert (pods.addresses, changes) == ([ServerAddress("http://10.0.0.7:8000/v1", is_in_pod=True)], [1])
    assert api.calls_of("GET")[0][1] == {
        "limit": "500",
        "continue": "",
        "labelSelector": "perllm.io/server=true",
        "fieldSelector": "spec.nodeName=n",
    }
    for one in running:
        one.cancel()
