"""What one agent takes while it is idle, and while it makes 50 requests a second: the process of `perllm agent` itself.

Its node is simulated and twenty times as fast as an H100, so that the answers are not what limits it.
"""

import asyncio
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from bench.cluster import CpuUse, clear, memory_mib, peak_memory_mib, wait_until
from bench.fleets import TASKS
from bench.served import make_request, watch_answers
from bench.tables import Row
from bench.whole_loop import write_scenario
from perllm_lab.hardware.scenario import Scenario
from perllm_lab.kubernetes.ports import find_free_ports
from perllm_lab.kubernetes.process import Process
from perllm_lab.lab import Lab, LabSettings
from perllm_lab.nodes.agents import build_config, issue_token
from perllm_lab.workload.manifests import served_task_manifest
from perllm_lab.workload.scenarios import load_scenario

GPU, SPEED = "h100-8b", 20.0
RATE_PER_S, SPAN_S, IDLE_S = 50.0, 30.0, 30.0
START_S = 60.0
AGENT = "agent"


async def measure_agent(
    binaries: Mapping[str, Path], folder: Path, say: Callable[[str], None], *, span_s: float = SPAN_S
) -> list[Row]:
    """Return memory and processor time of an agent, idle and busy."""
    scenario = _build_scenario()
    file = write_scenario(scenario, folder)
    async with Lab(binaries, scenario, folder, LabSettings(str(file), SPEED, has_agents=True)) as lab:
        await lab.agents.stop()
        agent = await _build_agent(lab)
        await agent.start()
        try:
            await agent.wait_until(lab.serves_all, timeout_s=START_S)
            return await _measure(lab, agent, span_s, say)
        finally:
            await agent.stop()


def _build_scenario() -> Scenario:
    modern = load_scenario("modern")
    group = next(group for group in modern.groups if group.gpu == GPU)
    return modern.model_copy(update={"name": "one-node", "groups": (group.model_copy(update={"count": 1}),)})


async def _build_agent(lab: Lab) -> Process:
    """Return the agent of the only node as the chart runs it, apart from its container."""
    (node,) = lab.scenario.nodes()
    (port,) = find_free_ports(1)
    config = build_config(node, lab.nodes_url).model_copy(update={"health_host": "127.0.0.1", "health_port": port})
    files = {"agent.yaml": config.model_dump(mode="json"), "agent.kubeconfig": await _write_kubeconfig(lab, node.name)}
    for name, content in files.items():
        (lab.folder / name).write_text(yaml.safe_dump(content), encoding="utf-8")
    config_file, kubeconfig = (str(lab.folder / name) for name in files)
    options = ("--node", node.name, "--config", config_file, "--kubeconfig", kubeconfig)
    return Process("agent", [sys.executable, "-m", "perllm", "agent", *options], log_file=lab.folder / "agent.log")


async def _write_kubeconfig(lab: Lab, node: str) -> dict[str, Any]:
    """Return the kubeconfig of the agent's account, with a token that is bound to a pod on its node."""
    content: dict[str, Any] = yaml.safe_load(lab.control_plane.admin_kubeconfig.read_text(encoding="utf-8"))
    content["users"][0]["user"] = {"token": await issue_token(lab.client, node)}
    return content


async def _measure(lab: Lab, agent: Process, span_s: float, say: Callable[[str], None]) -> list[Row]:
    pid = agent.pid
    assert pid is not None
    idle = CpuUse({AGENT: pid})
    await asyncio.sleep(IDLE_S)
    idle_share, idle_mib = idle.spent_s()[AGENT] / IDLE_S, memory_mib(pid)
    busy, begun_s = CpuUse({AGENT: pid}), time.monotonic()
    count = await _run_tasks(lab, span_s)
    took_s = time.monotonic() - begun_s
    request_ms = 1e3 * (busy.spent_s()[AGENT] - idle_share * took_s) / count
    say(f"agent: idle {1e3 * idle_share:.0f} ms/s, {idle_mib:.0f} MiB; {request_ms:.1f} ms a request")
    await clear(lab.client)
    reached = f"{count} tasks, all answered in {took_s:.0f} s: {count / took_s:.0f}/s"
    return [
        Row("agent, idle: CPU", [1e3 * idle_share], "ms/s"),
        Row("agent, idle: memory", [idle_mib], "MiB"),
        Row(f"agent at {RATE_PER_S:g} requests/s: CPU per request", [request_ms], "ms", "", reached),
        Row(f"agent at {RATE_PER_S:g} requests/s: memory, peak", [peak_memory_mib(pid)], "MiB"),
    ]


async def _run_tasks(lab: Lab, span_s: float) -> int:
    """Create tasks at a steady rate, wait for all answers, and return how many there were."""
    count, begun_s = round(RATE_PER_S * span_s), time.monotonic()
    with watch_answers(lab.client) as sightings:
        async with asyncio.TaskGroup() as group:
            for number in range(count):
                await asyncio.sleep(max(begun_s + number / RATE_PER_S - time.monotonic(), 0.0))
                manifest = served_task_manifest(make_request(f"agent-{number}"), namespace="default")
                group.create_task(lab.client.post(TASKS, manifest))

        async def all_answered() -> bool:
            return len(sightings.answered_s) >= count

        await wait_until(all_answered, f"{count} answers")
    return count
