"""Kueue on a control plane: its resource definitions, which come with its Go module, and its controllers."""

import json
import os
from pathlib import Path

import yaml

from perllm.cluster.client import Client, Object
from perllm_lab.installation import wait_served
from perllm_lab.kubernetes.build import run
from perllm_lab.kubernetes.golang import find_go
from perllm_lab.kubernetes.process import Process
from perllm_lab.kubernetes.toolchain import default_cache_folder, provide
from programs.modules import list_test_modules

_DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


async def build_kueue(kubeconfig: Path, log_file: Path) -> Process:
    """Return Kueue as a process that is not started yet; it is built the first time on a machine, in minutes."""
    programs = await provide(["kueue"], cache_folder=default_cache_folder(), more_modules=list_test_modules())
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}
    return Process("kueue", [programs["kueue"]], log_file=log_file, environment=environment)


async def install_kueue(client: Client) -> None:
    """Install Kueue's resource definitions. Only their stored version can be used: nothing converts the others."""
    for file in sorted((await _find_sources() / "config/components/crd/bases").glob("*.yaml")):
        definition: Object = yaml.load(file.read_text(), Loader=yaml.CSafeLoader)
        await client.post(_DEFINITIONS, definition)
        (version,) = [one["name"] for one in definition["spec"]["versions"] if one["storage"]]
        await wait_served(
            client, f"/apis/{definition['spec']['group']}/{version}/{definition['spec']['names']['plural']}"
        )


async def _find_sources() -> Path:
    (module,) = [one for one in list_test_modules() if one.name == "kueue"]
    go = await find_go(module, default_cache_folder(), lambda progress: None)
    lines: list[str] = []
    arguments = (go.executable, "mod", "download", "-json", "sigs.k8s.io/kueue")
    code = await run(arguments, lines.append, go.environment, module.folder)
    assert code == 0, lines
    return Path(json.loads("\n".join(lines))["Dir"])
