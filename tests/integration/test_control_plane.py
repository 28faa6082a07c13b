import asyncio
import json
import ssl
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import aiohttp.web
import pytest
import pytest_asyncio

from perllm.cluster.pod import read_other_pod
from perllm.extender.scheduler import scheduler_configuration
from perllm.extender.unbound_pods import SchedulerAnswer
from perllm_lab.kubernetes.control_plane import ControlPlane
from perllm_lab.kubernetes.prometheus import Prometheus, ScrapeTarget

PAUSE = {"containers": [{"name": "main", "image": "pause"}]}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def frail_plane(
    binaries: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ControlPlane]:
    """Belongs to the tests of this module that end parts of it, at last all of it."""
    async with ControlPlane(binaries, tmp_path_factory.mktemp("frail")) as plane:
        yield plane


def make_node(name: str) -> dict[str, Any]:
    capacity = {"cpu": "4", "memory": "8Gi", "pods": "10"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"test": name}},
        "status": {"capacity": capacity, "allocatable": capacity, "conditions": [{"type": "Ready", "status": "True"}]},
    }


def make_pod(name: str, node: str, **spec: Any) -> dict[str, Any]:
    # An empty node selector would let the pods of one test run on the nodes of another.
    body = {**PAUSE, "nodeSelector": {"test": node}, **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": body}


async def run_kubectl(argv: Sequence[str], body: Any = None) -> tuple[int | None, str]:
    child = await asyncio.create_subprocess_exec(*argv, stdin=PIPE, stdout=PIPE, stderr=STDOUT)
    output, _ = await child.communicate(json.dumps(body).encode() if body else None)
    return child.returncode, output.decode()


async def kubectl(plane: ControlPlane, *arguments: str, body: Any = None) -> str:
    code, output = await run_kubectl((*plane.kubectl_argv, *arguments), body)
    assert code == 0, output
    return output


async def create_node(plane: ControlPlane, name: str) -> None:
    node = make_node(name)
    await kubectl(plane, "create", "-f", "-", body=node)
    # Creation drops the status, which is a subresource.
    await kubectl(plane, "patch", "node", name, "--subresource=status", "-p", json.dumps({"status": node["status"]}))


async def wait_for_node_of(plane: ControlPlane, pod: str) -> str:
    await kubectl(plane, "wait", f"pod/{pod}", "--for=condition=PodScheduled", "--timeout=20s")
    return await kubectl(plane, "get", "pod", pod, "-o", "jsonpath={.spec.nodeName}")


def is_alive(pid: int | None) -> bool:
    return Path(f"/proc/{pid}").exists()


async def test_serves_a_certificate_of_its_own_authority(control_plane: ControlPlane) -> None:
    url = f"{control_plane.url}/version"
    context = ssl.create_default_context(cafile=str(control_plane.authority_file))
    async with aiohttp.ClientSession() as session:
        async with session.get(url, ssl=context) as response:
            assert response.status == 200
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await session.get(url)


async def test_denies_a_user_without_rights(control_plane: ControlPlane, binaries: dict[str, Path]) -> None:
    kubeconfig = control_plane.write_kubeconfig("somebody")
    code, output = await run_kubectl((str(binaries["kubectl"]), f"--kubeconfig={kubeconfig}", "get", "nodes"))
    assert code == 1
    assert '(Forbidden): nodes is forbidden: User "somebody" cannot list resource "nodes"' in output


async def test_binds_a_pod_to_a_ready_node(control_plane: ControlPlane) -> None:
    await create_node(control_plane, "ready")
    await kubectl(control_plane, "create", "-f", "-", body=make_pod("plain", "ready"))
    assert await wait_for_node_of(control_plane, "plain") == "ready"


async def test_kube_scheduler_says_of_a_pod_that_it_could_not_ask_the_extender(frail_plane: ControlPlane) -> None:
    """By this word an alert knows that the operator cannot be reached."""
    await frail_plane.start_scheduler("deaf", scheduler_configuration("http://127.0.0.1:1", "deaf"))
    await create_node(frail_plane, "deaf")
    await kubectl(frail_plane, "create", "-f", "-", body=make_pod("unasked", "deaf", schedulerName="deaf"))
    await kubectl(frail_plane, "wait", "pod/unasked", "--for=condition=PodScheduled=false", "--timeout=20s")
    await frail_plane.kill_component("deaf")

    pod = read_other_pod(json.loads(await kubectl(frail_plane, "get", "pod", "unasked", "-o", "json")))

    assert pod is not None
    assert pod.wait_reason == SchedulerAnswer.ERROR


async def test_runs_a_second_scheduler_alongside_the_default_one(frail_plane: ControlPlane) -> None:
    await frail_plane.start_scheduler("private", {"profiles": [{"schedulerName": "perllm"}]})
    await frail_plane.kill_component("kube-scheduler")
    await create_node(frail_plane, "private")
    await kubectl(frail_plane, "create", "-f", "-", body=make_pod("ours", "private", schedulerName="perllm"))
    assert await wait_for_node_of(frail_plane, "ours") == "private"


async def test_survives_a_crash_of_the_api_server(frail_plane: ControlPlane) -> None:
    await kubectl(frail_plane, "create", "namespace", "kept")
    await frail_plane.kill_component("kube-apiserver")
    await frail_plane.start_component("kube-apiserver")
    assert "kept" in await kubectl(frail_plane, "get", "namespaces")


async def test_leaves_nothing_behind(frail_plane: ControlPlane) -> None:
    pids = [process.pid for process in frail_plane.processes.values() if process.running]
    assert len(pids) == 4
    await frail_plane.stop()
    assert [pid for pid in pids if is_alive(pid)] == []


async def query(prometheus: Prometheus, expression: str) -> list[dict[str, Any]]:
    url = f"{prometheus.url}/api/v1/query"
    async with aiohttp.ClientSession() as session, session.get(url, params={"query": expression}) as response:
        result: list[dict[str, Any]] = (await response.json())["data"]["result"]
        return result


async def wait_for(check: Callable[[], Awaitable[Any]]) -> Any:
    async with asyncio.timeout(20):
        while not (found := await check()):  # noqa: ASYNC110 (there is no event for a scrape)
            await asyncio.sleep(0.1)
        return found


async def test_prometheus_scrapes_and_keeps_its_data_over_a_crash(binaries: dict[str, Path], tmp_path: Path) -> None:
    async def answer(request: aiohttp.web.Request) -> aiohttp.web.Response:
        return aiohttp.web.Response(text="power_watts 42\n")

    application = aiohttp.web.Application()
    application.router.add_get("/metrics/edge-1", answer)
    runner = aiohttp.web.AppRunner(application)
    await runner.setup()
    site = aiohttp.web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0]
    target = ScrapeTarget("dcgm", f"{host}:{port}", "/metrics/edge-1", "edge-1")
    async with Prometheus(binaries["prometheus"], tmp_path, [target], scrape_interval_s=0.2) as prometheus:
        (sample,) = await wait_for(lambda: query(prometheus, "power_watts"))
        assert (sample["metric"]["instance"], sample["value"][1]) == ("edge-1", "42")
        await runner.cleanup()
        await prometheus.kill()
        await prometheus.start()
        assert await query(prometheus, "max_over_time(power_watts[1h])")
