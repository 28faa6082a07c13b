"""`perllm-lab up`: ended by Ctrl-C, `down`, a kill or a process that dies, and started in the same folder again."""

import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from e2e.stage import wait_until
from perllm.api import names
from perllm.cluster.client import Client, Object
from perllm.cluster.credentials import load_credentials
from perllm_lab.cli.cluster import EXAMPLES
from perllm_lab.kubernetes.process import Process
from perllm_lab.trace_replay import FINAL_PHASES
from perllm_lab.workload.manifests import task_manifest
from perllm_lab.workload.requests import Request

START_TIMEOUT_S = 300.0
STOP_TIMEOUT_S = 90.0
COMMAND_TIMEOUT_S = 90.0


async def test_a_lab_starts_again_after_ctrl_c_and_after_a_kill(binaries: dict[str, Path], tmp_path: Path) -> None:
    process = _lab(tmp_path, "up", "--speed", "5")
    async with _running(process, tmp_path) as client:
        await _run_task(client, "first")
        await _signal(process, signal.SIGKILL)
    assert await _read_output(_lab(tmp_path, "down")) == "no lab is running\n"
    async with _running(process, tmp_path) as client:
        assert await _phases(client) == {"first": "Succeeded"}
        await _run_task(client, "second")
        await wait_until(lambda: _has_learned(client, 2), timeout_s=30)
        await _try_plugin(tmp_path)
        assert "works in" in await _read_output(_lab(tmp_path, "up"))
        await _signal(process, signal.SIGINT)
    async with _running(process, tmp_path) as client:
        assert await _phases(client) == {"first": "Succeeded", "second": "Succeeded"}
        await wait_until(lambda: _has_learned(client, 3), timeout_s=30)
        await _try_examples(tmp_path)
        _kill_agents(process)
        await _wait_ended(process)
        assert "agents has ended with exit code -9" in process.log_file.read_text()
    size = process.log_file.stat().st_size
    await process.start()
    await process.wait_until(lambda: _says(process, size, "Resuming"), timeout_s=START_TIMEOUT_S)
    assert "to stop" in await _read_output(_lab(tmp_path, "down"))
    await _wait_ended(process)
    assert "Prometheus" not in process.log_file.read_bytes()[size:].decode(), "it ended only once it had started"


def _lab(folder: Path, command: str, *options: str) -> Process:
    argv = [sys.executable, "-m", "perllm_lab.cli", command, "--folder", str(folder / "lab"), *options]
    return Process(f"lab {command}", argv, log_file=folder / f"{command}{'-'.join(options)}.log")


@asynccontextmanager
async def _running(process: Process, folder: Path) -> AsyncIterator[Client]:
    """Start the lab and wait until it says that it is ready for use."""
    size = process.log_file.stat().st_size if process.log_file.exists() else 0
    await process.start()
    try:
        await process.wait_until(lambda: _says(process, size, "Ctrl-C"), timeout_s=START_TIMEOUT_S)
        kubeconfig = folder / "lab" / "up" / "kubernetes" / "kubeconfigs" / "admin.yaml"
        async with Client(load_credentials(kubeconfig)) as client:
            yield client
    finally:
        await process.stop()


async def _says(process: Process, start: int, words: str) -> bool:
    return words.encode() in process.log_file.read_bytes()[start:]


async def _run_task(client: Client, name: str) -> None:
    request = Request(name, "chat", 0.0, 200, 30, 1000, 60.0)
    await client.post(names.tasks_path("default"), task_manifest(request, namespace="default"))

    async def has_ended() -> bool:
        return (await _phases(client))[name] in FINAL_PHASES

    await wait_until(has_ended, timeout_s=40)


async def _phases(client: Client) -> dict[str, str]:
    items = (await client.get(names.tasks_path("default")))["items"]
    return {item["metadata"]["name"]: (item.get("status") or {}).get("phase", "") for item in items}


async def _has_learned(client: Client, count: int) -> bool:
    profiles: list[Object] = (await client.get(names.node_profiles_path()))["items"]
    learned: int = sum((item.get("status") or {}).get("outcomes", 0) for item in profiles)
    return learned == count


async def _try_plugin(folder: Path) -> None:
    """Do what the lab suggests, in a shell that sources its environment."""
    source = f". {folder}/lab/env"
    asked = "kubectl perllm submit --model chat --deadline 60s --prompt Why? --wait"
    assert "in time, complete after" in await _read_output(_shell(folder, "submit", f"{source}; {asked}"))
    assert "second" in await _read_output(_shell(folder, "top", f"{source}; kubectl perllm top --once"))
    explained = await _read_output(_shell(folder, "explain", f"{source}; kubectl perllm explain llmtask/second"))
    assert "Why not" in explained
    assert "as a pod" in explained
    checked = await _read_output(_shell(folder, "doctor", f"{source}; perllm doctor"))
    assert "ok, 0 warn, 0 FAIL" in checked, checked
    await _read_output(_shell(folder, "delete", f"{source}; kubectl delete llmtasks --selector perllm.io/batch"))


async def _try_examples(folder: Path) -> None:
    """Apply the examples that the lab names, until they are over."""
    for example in EXAMPLES:
        file = Path(__file__).parents[2] / "examples" / example
        condition = "Complete" if example == "job.yaml" else "Finished"
        apply = f"kubectl apply -f {file} && kubectl wait -f {file} --for=condition={condition} --timeout=60s"
        printed = await _read_output(_shell(folder, example, f". {folder}/lab/env; {apply}"))
        assert "condition met" in printed, printed


def _shell(folder: Path, name: str, script: str) -> Process:
    return Process(name, ["bash", "-c", script], log_file=folder / f"{name}.log")


async def _signal(process: Process, number: signal.Signals) -> None:
    assert process.pid is not None
    os.kill(process.pid, number)
    await _wait_ended(process)


def _kill_agents(lab: Process) -> None:
    """Kill the process in which the agents of a lab run, as a crash would."""
    children = Path(f"/proc/{lab.pid}/task/{lab.pid}/children").read_text().split()
    (agents,) = (one for one in children if b"perllm_lab.nodes.agents" in Path(f"/proc/{one}/cmdline").read_bytes())
    os.kill(int(agents), signal.SIGKILL)


async def _wait_ended(process: Process, timeout_s: float = STOP_TIMEOUT_S) -> None:
    async def has_ended() -> bool:
        return not process.running

    await wait_until(has_ended, timeout_s=timeout_s)


async def _read_output(process: Process) -> str:
    """Run a command to its end; return what it printed."""
    await process.start()
    await _wait_ended(process, COMMAND_TIMEOUT_S)
    return process.log_file.read_text()
