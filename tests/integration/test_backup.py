"""The commands in docs/operate.md that back up and restore learned state, run as written there."""

import asyncio
import os
import re
import shutil
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path

import pytest

from perllm.api import names
from perllm.api.task import Tier
from perllm.cluster.client import Client
from perllm.cluster.credentials import load_credentials
from perllm.cluster.node import Node
from perllm.learning.learner import Learner
from perllm.policy.table import CsUcbTable
from perllm_lab.kubernetes.control_plane import ControlPlane
from unit.learning.outcomes import make_outcome
from unit.nodes.stores import Saved

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs/operate.md"
CRDS = ROOT / "crds"


def read_commands() -> list[str]:
    """Return the backup and the restore."""
    section = GUIDE.read_text().partition("## Backing up learned state")[2].partition("\n## ")[0]
    return re.findall(r"```\n(.*?)```", section, re.DOTALL)


async def run(command: str, folder: Path, plane: ControlPlane) -> str:
    environment = {
        **os.environ,
        "KUBECONFIG": str(plane.admin_kubeconfig),
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
    }
    child = await asyncio.create_subprocess_shell(command, cwd=folder, env=environment, stdout=PIPE, stderr=STDOUT)
    output, _ = await child.communicate()
    return output.decode()


def start(client: Client, node: Node, instance: str) -> tuple[Learner, Saved]:
    learner = Learner(CsUcbTable())
    learner.register(node.name, node.gpu_type)
    store = Saved(client, learner, {node.name: node}.get, instance=instance)
    return learner, store


@pytest.mark.skipif(
    shutil.which("jq") is None and "PERLLM_REQUIRE_REAL_NODE" not in os.environ, reason="jq is not installed"
)
async def test_learned_state_is_restored(
    control_plane: ControlPlane, binaries: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/kubectl").symlink_to(binaries["kubectl"])
    backup, restore = read_commands()
    for command in ("apply --server-side", "wait --for=condition=Established --timeout=30s"):
        await run(f"kubectl {command} -f {CRDS}", tmp_path, control_plane)
    async with Client(load_credentials(control_plane.admin_kubeconfig)) as client:
        created = await client.post("/api/v1/nodes", {"metadata": {"name": "a"}})
        node = Node("a", created["metadata"]["uid"], Tier.EDGE, "T4", 4.0, frozenset(), True)
        learned = {}
        for instance in ("", "north"):
            learner, store = start(client, node, instance)
            learner.learn(make_outcome(1))
            await store.flush()
            learned[instance] = learner.export_arm("a", "m")
        await run(backup, tmp_path, control_plane)
        await client.delete(names.node_profiles_path())
        output = await run(restore, tmp_path, control_plane)
        for instance, state in learned.items():
            learner, store = start(client, node, instance)
            assert await store.load() == 1, output
            assert learner.export_arm("a", "m") == state
        await client.delete(names.node_profiles_path())
        await client.delete("/api/v1/nodes/a")
