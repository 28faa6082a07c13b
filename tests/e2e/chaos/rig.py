"""A lab whose operator, nodes and agents reach the API server through links, and whose API server logs all changes."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from e2e.audit import AuditLog, record_all_changes
from e2e.chaos.link import Link
from e2e.chaos.plan import AGENT, AGENT_LINK, AGENT_NODE, AGENTS, AGENTS_LINK, NODES_LINK, OPERATOR_LINK
from e2e.stage import Stage, open_stage
from perllm.api.task_status import RunsAs
from perllm_lab.installation import OPERATOR_USER
from perllm_lab.kubernetes.process import Process
from perllm_lab.lab import Lab, LabSettings
from perllm_lab.workload.scenarios import load_scenario

SCENARIO, SPEED = "modern", 3.0
SCRAPE_S, ENERGY_PATIENCE_S = 2.0, 20.0
NAMESPACES = ("alpha", "beta", "gamma")
NODES_USER = "lab-nodes"
START_S = 60.0
LINKS = {
    RunsAs.POD: (OPERATOR_LINK, NODES_LINK),
    RunsAs.REQUEST: (OPERATOR_LINK, NODES_LINK, AGENTS_LINK, AGENT_LINK),
}
# Kubernetes gives up a node after seconds, not minutes. A node's lease is renewed every 10 s, and less than twice that
# would lose healthy nodes while the controller manager reconnects.
FLAGS = {
    "kube-controller-manager": ("--node-monitor-grace-period=20s", "--node-monitor-period=1s"),
    "kube-apiserver": ("--default-not-ready-toleration-seconds=1", "--default-unreachable-toleration-seconds=1"),
}


@dataclass(frozen=True, slots=True)
class ChaosRig:
    """The lab, its links, a namespace for each user, and the API server's own log of changes.

    Attributes:
        agents: processes with agents, by name; empty where tasks run as pods.
    """

    lab: Lab
    runs_as: RunsAs
    links: Mapping[str, Link]
    agents: Mapping[str, Process]
    stages: Mapping[str, Stage]
    audit: AuditLog

    @property
    def stage(self) -> Stage:
        """Any of the stages, for what does not depend on the namespace."""
        return self.stages[NAMESPACES[0]]


@asynccontextmanager
async def open_rig(binaries: Mapping[str, Path], folder: Path, runs_as: RunsAs) -> AsyncIterator[ChaosRig]:
    """Start everything in a folder without files of an earlier lab."""
    audit = AuditLog(folder / "audit", record_all_changes())
    flags = {**FLAGS, "kube-apiserver": (*FLAGS["kube-apiserver"], *audit.flags)}
    settings = LabSettings(
        SCENARIO,
        SPEED,
        scrape_interval_s=SCRAPE_S,
        operator_config={"energy_patience_s": ENERGY_PATIENCE_S},
        flags=flags,
        has_agents=runs_as is RunsAs.REQUEST,
    )
    async with AsyncExitStack() as stack:
        lab = await stack.enter_async_context(Lab(binaries, load_scenario(SCENARIO), folder, settings))
        stack.callback(audit.close)
        links = {name: await stack.enter_async_context(Link(lab.control_plane.url)) for name in LINKS[runs_as]}
        await _insert_links(lab, links)
        stack.push_async_callback(lab.nodes.stop)
        agents: dict[str, Process] = {}
        if runs_as is RunsAs.REQUEST:
            await lab.agents.stop()
            agents = _build_agents(lab, links)
            for process in agents.values():
                stack.push_async_callback(process.stop)
                await process.start()
            await agents[AGENTS].wait_until(lab.serves_all, timeout_s=START_S)
        stages = {name: await stack.enter_async_context(open_stage(lab, name)) for name in NAMESPACES}
        yield ChaosRig(lab, runs_as, links, agents, stages, audit)


async def _insert_links(lab: Lab, links: Mapping[str, Link]) -> None:
    """Restart the operator and the nodes, each behind its link."""
    await lab.operator.stop()
    await lab.nodes.stop()
    lab.nodes = _redirect_process(lab, lab.nodes, NODES_USER, links[NODES_LINK])
    _redirect(lab.control_plane.write_kubeconfig(OPERATOR_USER), links[OPERATOR_LINK].url)
    await lab.start_nodes()
    await lab.start_operator()


def _build_agents(lab: Lab, links: Mapping[str, Link]) -> dict[str, Process]:
    """Return the agents as two processes, each behind a link: that of one node, and those of all others."""
    others = [node.name for node in lab.scenario.nodes() if node.name != AGENT_NODE]
    return {
        AGENTS: _redirect_process(lab, lab.agents, "lab-agents", links[AGENTS_LINK], _name_nodes(others)),
        AGENT: _redirect_process(lab, lab.agents, "lab-agent", links[AGENT_LINK], _name_nodes([AGENT_NODE])),
    }


def _name_nodes(names: Sequence[str]) -> list[str]:
    return [part for name in names for part in ("--node", name)]


def _redirect_process(lab: Lab, process: Process, user: str, link: Link, options: Sequence[str] = ()) -> Process:
    """Return a process of an administrator's, as another administrator behind a link."""
    kubeconfig = lab.control_plane.write_kubeconfig(user, "system:masters")
    _redirect(kubeconfig, link.url)
    admin = str(lab.control_plane.admin_kubeconfig)
    argv = [str(kubeconfig) if part == admin else part for part in process.argv]
    return Process(process.name, [*argv, *options], log_file=process.log_file)


def _redirect(kubeconfig: Path, url: str) -> None:
    content = yaml.safe_load(kubeconfig.read_text())
    content["clusters"][0]["cluster"]["server"] = url
    kubeconfig.write_text(yaml.safe_dump(content))
