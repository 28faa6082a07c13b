import asyncio
import dataclasses
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from perllm.cluster.client import ApiError
from perllm_lab.nodes.registration import LEASES, NODES, Registrar, node_object
from unit.lab_nodes.setting import SPEC

NOW = datetime(2027, 1, 15, 8, 0, 0, 123456, UTC)


class RecordingClient:
    """Keeps requests and denies the given ones, once each."""

    def __init__(self, **refusals):
        self.calls = []
        self.refusals = refusals

    async def post(self, path, body):
        self._take("POST", path, body)

    async def patch(self, path, body, **options):
        self._take("PATCH", path, body)

    def _take(self, method, path, body):
        self.calls.append((method, path, body))
        status = self.refusals.pop(f"{method}_{path.split('/')[-2]}", None)
        if status:
            raise ApiError(status, "", "")

    def made(self):
        return [(method, path) for method, path, _ in self.calls]


def registrar(client):
    return Registrar(client, wall=lambda: NOW)


def test_a_node_says_tier_and_gpu_and_advertises_its_slots():
    node = node_object(SPEC, NOW)
    assert node["metadata"]["labels"]["perllm.io/tier"] == "edge"
    assert node["metadata"]["labels"]["nvidia.com/gpu.product"] == "NVIDIA-Jetson-AGX-Orin"
    assert node["status"]["allocatable"]["nvidia.com/gpu"] == "2"
    ready = next(each for each in node["status"]["conditions"] if each["type"] == "Ready")
    assert ready["status"] == "True"


def test_a_node_with_several_gpus_says_how_many_and_advertises_the_slots_of_all():
    node = node_object(dataclasses.replace(SPEC, gpus=4), NOW)
    assert node["metadata"]["labels"]["nvidia.com/gpu.count"] == "4"
    assert node["status"]["allocatable"]["nvidia.com/gpu"] == "8"
    assert "nvidia.com/gpu.count" not in node_object(SPEC, NOW)["metadata"]["labels"]


async def test_a_new_node_is_created_with_its_lease():
    client = RecordingClient(PATCH_leases=404)
    await registrar(client).register(SPEC)
    assert client.made() == [("POST", NODES), ("PATCH", f"{LEASES}/edge-0"), ("POST", LEASES)]
    assert client.calls[-1][2]["spec"]["renewTime"] == "2027-01-15T08:00:00.123456Z"


async def test_an_existing_node_is_updated():
    client = RecordingClient(POST_v1=409)
    await registrar(client).register(SPEC)
    assert [path for _, path in client.made()[1:]] == [
        f"{NODES}/edge-0",
        f"{NODES}/edge-0/status",
        f"{LEASES}/edge-0",
    ]


async def test_a_denial_is_raised():
    with pytest.raises(ApiError):
        await registrar(RecordingClient(POST_v1=403)).register(SPEC)


@pytest.mark.looptime
async def test_leases_are_renewed_every_10_s_while_the_node_is_up():
    client, node = RecordingClient(), SimpleNamespace(is_up=True)
    beats = asyncio.create_task(registrar(client).keep_alive(SPEC, node, 3.0))
    await asyncio.sleep(30)
    assert len(client.calls) == 3
    node.is_up = False
    await asyncio.sleep(60)
    assert len(client.calls) == 3
    beats.cancel()


@pytest.mark.looptime
async def test_a_lease_that_could_not_be_renewed_is_retried_after_1_s():
    client = RecordingClient(PATCH_leases=503)
    beats = asyncio.create_task(registrar(client).keep_alive(SPEC, SimpleNamespace(is_up=True), 0.0))
    await asyncio.sleep(1.5)
    assert len(client.calls) == 2
    await asyncio.sleep(9)
    assert len(client.calls) == 2
    beats.cancel()


@pytest.mark.looptime
async def test_an_unchanged_status_is_reported_every_5_minutes():
    client = RecordingClient()
    beats = asyncio.create_task(registrar(client).keep_alive(SPEC, SimpleNamespace(is_up=True), 0.0))
    await asyncio.sleep(601)
    assert client.made().count(("PATCH", f"{NODES}/edge-0/status")) == 2
    beats.cancel()
