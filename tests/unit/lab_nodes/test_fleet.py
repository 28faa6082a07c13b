import asyncio
import copy
import json

import aiohttp
import pytest

from perllm.cluster.client import ApiError
from perllm_lab.hardware.scenario import parse_scenario
from perllm_lab.nodes.fleet import SimulatedFleet
from unit.lab_nodes.setting import pod_object

pytestmark = pytest.mark.looptime

SCENARIO = parse_scenario(
    "{name: pair, groups: [{name: edge, count: 2, tier: edge, gpu: t4-8b, uplink_mbps: 100, rtt_ms: 5}]}"
)


class MemoryApi:
    """Holds pods and notifies the watch of changes, as far as a fleet needs; finished pods leave its selection."""

    def __init__(self, *pods):
        self.pods = {pod["metadata"]["name"]: pod for pod in pods}
        self.nodes = {}
        self.events = asyncio.Queue()
        self.version = 0

    def put(self, pod, kind="MODIFIED"):
        self.version += 1
        pod["metadata"]["resourceVersion"] = str(self.version)
        self.pods[pod["metadata"]["name"]] = pod
        final = pod["status"]["phase"] in ("Succeeded", "Failed")
        self.events.put_nowait({"type": "DELETED" if final else kind, "object": copy.deepcopy(pod)})

    async def get(self, path, **query):
        assert "spec.nodeName!=" in query["fieldSelector"]
        items = copy.deepcopy(list(self.pods.values()))
        for number, item in enumerate(items):
            item["metadata"]["resourceVersion"] = f"list-{number}"
        return {"items": items, "metadata": {"resourceVersion": "0"}}

    async def watch(self, path, query, *, metadata_only, on_open):
        while True:
            yield await self.events.get()

    async def post(self, path, body):
        if path == "/api/v1/nodes":
            self.nodes[body["metadata"]["name"]] = body

    async def patch(self, path, body, **options):
        name = path.split("/")[-2]
        if path.endswith("/status") and name in self.pods:
            pod = self.pods[name]
            pod["status"].update(body["status"])
            self.put(pod)
            return pod
        return {}

    async def delete(self, path, body):
        pod = self.pods.pop(path.split("/")[-1], None)
        if pod is None:
            raise ApiError(404, "NotFound", "")
        self.events.put_nowait({"type": "DELETED", "object": pod})


def on(node, pod):
    pod["spec"]["nodeName"] = node
    return pod


def read_truth(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


async def test_pods_run_on_the_node_they_are_bound_to_and_others_are_left_alone(tmp_path):
    api = MemoryApi(on("edge-1", pod_object("there")), on("a-real-node", pod_object("elsewhere")))
    async with SimulatedFleet(SCENARIO, api, speed=10.0, truth_file=tmp_path / "truth"):
        api.put(on("edge-0", pod_object("later")), "ADDED")
        await asyncio.sleep(20)
    phases = {name: pod["status"]["phase"] for name, pod in api.pods.items()}
    assert phases == {"there": "Succeeded", "elsewhere": "Pending", "later": "Succeeded"}
    *runs, totals = read_truth(tmp_path / "truth")
    assert {run["pod"]: run["node"] for run in runs} == {"there": "edge-1", "later": "edge-0"}
    active_j = sum(node["energy_j"] - node["idle_energy_j"] for node in totals["nodes"].values())
    assert active_j == pytest.approx(sum(run["energy_j"] for run in runs))


async def test_every_node_serves_requests_and_the_truth_holds_them(tmp_path):
    async with (
        SimulatedFleet(SCENARIO, MemoryApi(), speed=10.0, truth_file=tmp_path / "truth") as fleet,
        aiohttp.ClientSession(f"http://127.0.0.1:{fleet.port}", timeout=aiohttp.ClientTimeout()) as session,
    ):
        body = {"model": "chat", "messages": [{"role": "user", "content": "hello"}]}
        for node in ("edge-0", "edge-1"):
            async with session.post(f"/nodes/{node}/v1/chat/completions", json=body) as response:
                assert response.status == 200
    *runs, totals = read_truth(tmp_path / "truth")
    assert [(run["kind"], run["node"]) for run in runs] == [("request", "edge-0"), ("request", "edge-1")]
    active_j = sum(node["energy_j"] - node["idle_energy_j"] for node in totals["nodes"].values())
    assert active_j == pytest.approx(sum(run["energy_j"] for run in runs))


async def test_all_nodes_are_registered_before_the_fleet_is_ready():
    api = MemoryApi()
    async with SimulatedFleet(SCENARIO, api):
        assert api.nodes.keys() == {"edge-0", "edge-1"}


async def test_a_pod_replaced_by_another_of_its_name_is_another_pod(tmp_path):
    api = MemoryApi(on("edge-0", pod_object("same", uid="old", output="900")))
    async with SimulatedFleet(SCENARIO, api, speed=10.0, truth_file=tmp_path / "truth"):
        await asyncio.sleep(1)
        api.put(on("edge-0", pod_object("same", uid="new")))
        await asyncio.sleep(20)
    assert [(run["uid"], run["outcome"]) for run in read_truth(tmp_path / "truth")[:-1]] == [
        ("old", "Deleted"),
        ("new", "Succeeded"),
    ]


async def test_a_fleet_that_stops_records_lost_pods_and_the_next_one_does_not_run_them_again(tmp_path):
    api = MemoryApi(on("edge-0", pod_object("long", output="900")))
    async with SimulatedFleet(SCENARIO, api, truth_file=tmp_path / "truth"):
        await asyncio.sleep(30)
    async with SimulatedFleet(SCENARIO, api):
        await asyncio.sleep(1)
    assert [run["outcome"] for run in read_truth(tmp_path / "truth")[:-1]] == ["Lost"]
    assert api.pods["long"]["status"]["reason"] == "NodeRestarted"


async def test_a_node_that_boots_runs_the_pods_bound_to_it_in_the_meantime():
    api = MemoryApi()
    async with SimulatedFleet(SCENARIO, api, speed=10.0) as fleet:
        fleet.cut_power("edge-0")
        api.put(on("edge-0", pod_object("waits")), "ADDED")
        await asyncio.sleep(20)
        assert api.pods["waits"]["status"]["phase"] == "Pending"
        await fleet.boot("edge-0")
        await asyncio.sleep(20)
        assert api.pods["waits"]["status"]["phase"] == "Succeeded"


async def test_the_end_of_a_part_is_reported():
    class BrokenApi(MemoryApi):
        async def watch(self, path, query, *, metadata_only, on_open):
            await self.events.get()
            raise RuntimeError("boom")
            yield

    api = BrokenApi()
    async with SimulatedFleet(SCENARIO, api) as fleet:
        assert fleet.troubles() == []
        api.put(pod_object())
        with pytest.raises(RuntimeError, match="boom"):
            await fleet.wait()
        assert fleet.troubles() == ["informer has ended"]


async def test_speed_must_be_positive():
    with pytest.raises(ValueError, match="speed must be above 0"):
        SimulatedFleet(SCENARIO, MemoryApi(), speed=0.0)
