"""Served tasks without agents on a real control plane: they run as pods that the operator makes."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from e2e.stage import Stage, wait_until
from perllm.api import names
from perllm.api.prompt import MAX_PROMPT_LENGTH
from perllm.api.report import RunReport, parse_run_report
from perllm.cluster.client import Object
from perllm_lab.lab import Lab

RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
PROMPT = 'Which is "the" largest of $(NODE_IP)? [[lab task=hello prompt=20 output=16 bytes=100]]'

LONGEST = "\x01" * MAX_PROMPT_LENGTH
"""Takes the most room in JSON: six bytes a character."""


@pytest_asyncio.fixture(loop_scope="session")
async def agents_stopped(stage: Stage, lab: Lab) -> AsyncIterator[None]:
    """No agent runs, and the operator knows; the test may start them itself."""
    log_start = lab.operator_log.stat().st_size
    await lab.agents.stop()
    await wait_logged(stage, "no model server takes requests", log_start)
    log_start = lab.operator_log.stat().st_size
    yield
    if not lab.agents.running:
        await lab.agents.start()
        await wait_logged(stage, "model servers take requests", log_start)


async def create(stage: Stage, name: str, prompt: str = PROMPT) -> None:
    manifest: Object = {
        "apiVersion": names.API_VERSION,
        "kind": names.TASK_KIND,
        "metadata": {"name": name},
        "spec": {"model": stage.lab.scenario.model, "deadline": "60s", "prompt": prompt},
    }
    await stage.lab.client.post(names.tasks_path(stage.namespace), manifest)


async def wait_logged(stage: Stage, words: str, log_start: int) -> None:
    """Wait until the operator has said something about the model servers of all nodes."""
    nodes = len(stage.lab.scenario.nodes())

    async def is_logged() -> bool:
        lines = stage.read_log(log_start)
        return sum(words in str(line.get("message")) for line in lines) >= nodes

    await wait_until(is_logged, timeout_s=30.0)


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


async def test_five_lines_run_as_a_pod_while_no_agent_is_there(
    stage: Stage, lab: Lab, agents_stopped: None, tmp_path: Path
) -> None:
    before = await stage.learned()
    await lab.client.patch(f"/api/v1/namespaces/{stage.namespace}", {"metadata": {"labels": RESTRICTED}})
    await create(stage, "hello")
    await stage.wait_bound(1, timeout_s=30.0)
    await lab.operator.kill()
    log_start = lab.operator_log.stat().st_size
    await lab.agents.start()
    await lab.start_operator()
    await wait_logged(stage, "model servers take requests", log_start)
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


@pytest.mark.usefixtures("agents_stopped")
async def test_the_longest_prompt_reaches_a_node(stage: Stage) -> None:
    await create(stage, "long", LONGEST)
    task = await stage.wait_final("long", timeout_s=60.0)
    assert (task["status"]["phase"], task["status"]["runsAs"]) == ("Succeeded", "pod")
