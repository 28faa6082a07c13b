"""A lab whose operator and nodes reach the API server through links, and whose API server logs all changes."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from e2e.audit import AuditLog, record_all_changes
from e2e.chaos.link import Link
from e2e.chaos.plan import NODES_LINK, OPERATOR_LINK
from e2e.stage import Stage, open_stage
from perllm_lab.kubernetes.process import Process
from perllm_lab.lab import OPERATOR_USER, Lab, LabSettings
from perllm_lab.workload.scenarios import load_scenario

SCENARIO, SPEED = "modern", 3.0
NAMESPACES = ("alpha", "beta", "gamma")
NODES_USER = "lab-nodes"
# Kubernetes gives up a node after seconds, not minutes. A node's lease is renewed every 10 s, and less than twice that
# would lose healthy nodes while the controller manager reconnects.
FLAGS = {
    "kube-controller-manager": ("--node-monitor-grace-period=20s", "--node-monitor-period=1s"),
    "kube-apiserver": ("--default-not-ready-toleration-seconds=1", "--default-unreachable-toleration-seconds=1"),
}


@dataclass(frozen=True, slots=True)
class ChaosRig:
    """The lab, its links, a namespace for each user, and the API server's own log of changes."""

    lab: Lab
    links: Mapping[str, Link]
    stages: Mapping[str, Stage]
    audit: AuditLog

    @property
    def stage(self) -> Stage:
        """Any of the stages, for what does not depend on the namespace."""
        return self.stages[NAMESPACES[0]]


@asynccontextmanager
async def open_rig(binaries: Mapping[str, Path], folder: Path) -> AsyncIterator[ChaosRig]:
    """Start everything in a folder without files of an earlier lab."""
    audit = AuditLog(folder / "audit", record_all_changes())
    flags = {**FLAGS, "kube-apiserver": (*FLAGS["kube-apiserver"], *audit.flags)}
    settings = LabSettings(SCENARIO, SPEED, flags=flags)
    async with AsyncExitStack() as stack:
        lab = await stack.enter_async_context(Lab(binaries, load_scenario(SCENARIO), folder, settings))
        stack.callback(audit.close)
        links = {
            name: await stack.enter_async_context(Link(lab.control_plane.url)) for name in (OPERATOR_LINK, NODES_LINK)
        }
        await _insert_links(lab, links)
        stack.push_async_callback(lab.nodes.stop)
        stages = {name: await stack.enter_async_context(open_stage(lab, name)) for name in NAMESPACES}
        yield ChaosRig(lab, links, stages, audit)


async def _insert_links(lab: Lab, links: Mapping[str, Link]) -> None:
    """Restart the operator and the nodes, each behind its link."""
    await lab.operator.stop()
    await lab.nodes.stop()
    control_plane = lab.control_plane
    kubeconfig = control_plane.write_kubeconfig(NODES_USER, "system:masters")
    _redirect(kubeconfig, links[NODES_LINK].url)
    argv = [str(kubeconfig) if part == str(control_plane.admin_kubeconfig) else part for part in lab.nodes.argv]
    lab.nodes = Process("nodes", argv, log_file=lab.nodes.log_file)
    _redirect(control_plane.write_kubeconfig(OPERATOR_USER), links[OPERATOR_LINK].url)
    await lab.start_nodes()
    await lab.start_operator()


def _redirect(kubeconfig: Path, url: str) -> None:
    content = yaml.safe_load(kubeconfig.read_text())
    content["clusters"][0]["cluster"]["server"] = url
    kubeconfig.write_text(yaml.safe_dump(content))
