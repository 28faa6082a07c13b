"""Served tasks without agents on a real control plane: they run as pods that the operator makes."""

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from e2e.stage import Stage, wait_until
from perllm.api import names
from perllm.api.report import RunReport, parse_run_report
from perllm.cluster.client import Object
from perllm_lab.lab import Lab, LabSettings

SERVER_URL = "http://$(NODE_IP):8000/v1"
PROMPT = 'Which is "the" largest of $(NODE_IP)? [[lab task=hello prompt=20 output=16 bytes=100]]'


@pytest.fixture(scope="module")
def lab_settings() -> LabSettings:
    runner = {"server_url": SERVER_URL, "image": "registry.example.com/perllm/perllm:0.1.0"}
    return LabSettings("modern", 1.0, operator_config={"runner": runner}, has_agents=True)


async def create(stage: Stage, name: str) -> None:
    manifest: Object = {
        "apiVersion": names.API_VERSION,
        "kind": names.TASK_KIND,
        "metadata": {"name": name},
        "spec": {"model": stage.lab.scenario.model, "deadline": "60s", "prompt": PROMPT},
    }
    await stage.lab.client.post(names.tasks_path(stage.namespace), manifest)


async def wait_served(stage: Stage, log_start: int) -> None:
    """Wait until the operator has seen the model servers of all nodes."""
    nodes = len(stage.lab.scenario.nodes())

    async def are_seen() -> bool:
        lines = stage.read_log(log_start)
        return sum("model servers take requests" in str(line.get("message")) for line in lines) >= nodes

    await wait_until(are_seen, timeout_s=30.0)


def run_container(pod: Object, url: str, report_file: Path) -> RunReport | None:
    """Run the container of a runner pod as kubelet does, with a model server at `url`; return its report."""
    report_file.touch()
    container: dict[str, Any] = pod["spec"]["containers"][0]
    environment = {one["name"]: one.get("value", "") for one in container["env"]} | {"PERLLM_URL": url}
    assert container["command"] == ["perllm-runner"]
    arguments = ["-m", "perllm.runner.cli", *container["args"], f"--termination-log={report_file}"]
    program = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False)
    assert (program.returncode, program.stdout) == (0, ""), program.stderr
    return parse_run_report(report_file.read_text())


async def test_five_lines_run_as_a_pod_while_no_agent_is_there(stage: Stage, lab: Lab, tmp_path: Path) -> None:
    before = await stage.learned()
    await lab.agents.stop()
    await create(stage, "hello")
    await stage.wait_bound(1, timeout_s=30.0)
    await lab.operator.kill()
    log_start = lab.operator_log.stat().st_size
    await lab.agents.start()
    await lab.start_operator()
    await wait_served(stage, log_start)
    await create(stage, "again")
    tasks = await stage.wait_all_settled(["hello", "again"], timeout_s=60.0)
    ways = {name: (task["status"]["runsAs"], task["status"]["attempts"]) for name, task in tasks.items()}
    assert ways == {"hello": ("pod", 1), "again": ("request", 1)}
    assert {task["status"]["phase"] for task in tasks.values()} == {"Succeeded"}
    assert stage.completed_runs() == {"hello": 1}
    await stage.wait_learned(before + 2, timeout_s=30.0)

    pod = stage.seen["hello-1"][-1]
    url = f"{lab.nodes_url}/nodes/{pod['spec']['nodeName']}/v1"
    report = await asyncio.to_thread(run_container, pod, url, tmp_path / "report")
    assert report is not None
    assert (report.output_tokens, report.prompt_tokens) == (16, 20)
    assert report.text
