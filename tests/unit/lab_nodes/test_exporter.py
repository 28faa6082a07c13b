from types import SimpleNamespace

import aiohttp
import pytest

from perllm_lab.nodes.exporter import Exporter
from unit.lab_nodes.setting import start_node


@pytest.fixture
async def fleet():
    node = start_node()

    async def boot(name):
        node.host.boot()

    return SimpleNamespace(
        hosts={"edge-0": node.host},
        speed=2.0,
        totals=lambda: {"kind": "fleet"},
        troubles=list,
        cut_power=lambda name: node.host.cut_power(),
        boot=boot,
    )


@pytest.fixture
async def ask(fleet):
    async with Exporter(fleet) as exporter, aiohttp.ClientSession(f"http://127.0.0.1:{exporter.port}") as session:

        async def request(path, method="GET"):
            async with session.request(method, path) as response:
                return response.status, await response.text()

        yield request


async def test_every_node_has_its_own_page(ask):
    status, page = await ask("/nodes/edge-0/exporters")
    assert (status, 'Hostname="edge-0"' in page) == (200, True)
    assert (await ask("/nodes/edge-9/exporters"))[0] == 404


async def test_a_node_without_power_has_no_metrics_until_it_boots(ask):
    await ask("/nodes/edge-0/cut-power", "POST")
    assert (await ask("/nodes/edge-0/exporters"))[0] == 503
    await ask("/nodes/edge-0/boot", "POST")
    assert (await ask("/nodes/edge-0/exporters"))[0] == 200


async def test_a_node_can_be_switched_to_refuse_pods_and_back(ask, fleet):
    kubelet = fleet.hosts["edge-0"].kubelet
    await ask("/nodes/edge-0/refuse", "POST")
    assert kubelet.refuses
    await ask("/nodes/edge-0/accept", "POST")
    assert not kubelet.refuses


async def test_the_clock_of_a_node_can_be_set(ask, fleet):
    set_to_s = []
    fleet.hosts["edge-0"].kubelet.set_clock = set_to_s.append
    await ask("/nodes/edge-0/clock/-60", "POST")
    assert set_to_s == [-60.0]


async def test_health_says_what_is_wrong(ask, fleet):
    assert await ask("/healthz") == (200, "ok")
    fleet.troubles = lambda: ["informer has ended"]
    assert await ask("/healthz") == (503, "informer has ended")


async def test_the_ground_truth_is_served(ask):
    assert await ask("/truth") == (200, '{"kind": "fleet"}')
