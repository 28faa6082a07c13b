"""The runner's result in a ConfigMap, with the rights that the example gives it and no others."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from perllm.runner.errors import ExitCode
from perllm_lab.kubernetes.control_plane import ControlPlane
from unit.completions.model_server import FakeModelServer

EXAMPLE = Path(__file__).parents[2] / "examples/batch-of-prompts.yaml"
NAMESPACE = "runner"


def kubectl(plane: ControlPlane, *args: str, text: str | None = None) -> str:
    command = (*plane.kubectl_argv, "--namespace", NAMESPACE, *args)
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=True).stdout


def kubeconfig_of_service_account(plane: ControlPlane, folder: Path) -> Path:
    token = kubectl(plane, "create", "token", "batch").strip()
    values = yaml.safe_load(plane.admin_kubeconfig.read_text())
    for user in values["users"]:
        user["user"] = {"token": token}
    file = folder / "kubeconfig.yaml"
    file.write_text(yaml.safe_dump(values))
    return file


async def run_runner(kubeconfig: Path, *args: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "perllm.runner.cli", "--model=m", "--wait=0", "--namespace", NAMESPACE, *args),
        env={"KUBECONFIG": str(kubeconfig)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode or 0, errors.decode()


async def test_answers_are_stored_with_the_rights_of_the_example(control_plane: ControlPlane, tmp_path: Path) -> None:
    kubectl(control_plane, "create", "namespace", NAMESPACE)
    documents = [one for one in yaml.safe_load_all(EXAMPLE.read_text()) if one["kind"] != "LLMInferenceTask"]
    kubectl(control_plane, "apply", "-f", "-", text=yaml.safe_dump_all(documents))
    (tmp_path / "prompts.jsonl").write_text(documents[0]["data"]["prompts.jsonl"])
    kubeconfig = kubeconfig_of_service_account(control_plane, tmp_path)
    log = tmp_path / "termination-log"
    log.touch()

    async with FakeModelServer.serve() as server:
        common = (f"--url={server.url}", f"--prompt-file={tmp_path / 'prompts.jsonl'}", f"--termination-log={log}")
        first = await run_runner(kubeconfig, *common, "--result=configmap:translations")
        again = await run_runner(kubeconfig, *common, "--result=configmap:translations")
        forbidden = await run_runner(kubeconfig, *common, "--result=configmap:texts")

    assert (first[0], again[0]) == (ExitCode.DONE, ExitCode.DONE), first[1] + again[1]
    stored: dict[str, Any] = json.loads(kubectl(control_plane, "get", "configmap", "translations", "-o", "json"))[
        "data"
    ]
    lines = [json.loads(line) for line in stored["answers.jsonl"].splitlines()]
    assert [(line["index"], line["text"]) for line in lines] == [
        (0, "Hello there"),
        (1, "Hello there"),
        (2, "Hello there"),
    ]
    assert json.loads(stored["report.json"])["outputTokens"] == 21
    assert forbidden[0] == ExitCode.RESULT_LOST
    assert "create and patch configmaps" in forbidden[1]
