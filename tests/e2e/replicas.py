"""Replicas of the operator: each with a kube-scheduler of its own, as the containers of one pod."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from e2e.stage import wait_until
from perllm.cluster.rbac import build_manifests, collection_path
from perllm.extender.scheduler import scheduler_configuration
from perllm_lab.installation import OPERATOR_USER, SCHEDULER_USER, rbac_user
from perllm_lab.kubernetes.ports import LOOPBACK, find_free_ports
from perllm_lab.kubernetes.process import Process, ProcessError
from perllm_lab.lab import Lab

NAMESPACE = "kube-system"
RESTART_S = 1.0
LEASE = "turns"
PATIENT_LEASE_S = 8
PATIENT = {"leaseDuration": f"{PATIENT_LEASE_S}s", "renewDeadline": "7s"}
"""Where other tests take the processors, an API server may not answer for longer than the chart's values allow."""

SLACK_S = 30.0
"""An operator starts within two seconds, or ten where other tests take the processors."""


@dataclass(slots=True)
class OperatorReplica:
    """One operator and its kube-scheduler, which see the name of the replica as their host name.

    Attributes:
        is_wanted: whether both should run: they were started, and neither stopped nor killed.
    """

    name: str
    lab: Lab
    operator: Process
    starts_file: Path
    health_url: str
    extender_url: str
    is_wanted: bool = False

    async def start(self) -> None:
        await self._start_both()
        self.is_wanted = True

    async def keep_running(self) -> None:
        """Start again what ended by itself, as the kubelet does: a starved machine makes replicas lose their lease."""
        while True:
            await asyncio.sleep(RESTART_S)
            if self.is_wanted:
                with suppress(ProcessError):
                    await self._start_both()

    async def kill(self) -> None:
        self.is_wanted = False
        await self.lab.control_plane.kill_component(self.name)
        await self.operator.kill()

    async def stop(self) -> None:
        """Stop both at once, as the kubelet does: an operator that outlives its kube-scheduler has lost its lease."""
        self.is_wanted = False
        await asyncio.gather(self.lab.control_plane.stop_component(self.name), self.operator.stop())

    def forget_starts(self) -> None:
        """Forget earlier starts, as a new pod does."""
        self.starts_file.unlink(missing_ok=True)

    async def ask(self, path: str) -> tuple[int, str]:
        """Return the status and the text of the answer; (0, "") if there is none."""
        try:
            async with aiohttp.ClientSession() as session, session.get(f"{self.health_url}/{path}") as answer:
                return answer.status, await answer.text()
        except aiohttp.ClientError:
            return 0, ""

    async def is_active(self) -> bool:
        return "perllm_active 1.0" in (await self.ask("metrics"))[1].splitlines()

    async def answers_scheduler(self) -> bool:
        """Whether the extender listens."""
        try:
            async with aiohttp.ClientSession() as session, session.get(self.extender_url):
                return True
        except aiohttp.ClientError:
            return False

    def read_log(self, start: int = 0) -> str:
        """Return the operator's log from a position in bytes on."""
        return self.operator.log_file.read_bytes()[start:].decode()

    def log_size(self) -> int:
        """Return the present end of the operator's log."""
        return self.operator.log_file.stat().st_size

    async def _start_both(self) -> None:
        await self.operator.start()
        await self.lab.control_plane.start_component(self.name)


Pair = tuple[OperatorReplica, OperatorReplica]


@asynccontextmanager
async def open_replica(
    lab: Lab, name: str, config: Mapping[str, Any], *, election: Mapping[str, str] | None = None
) -> AsyncIterator[OperatorReplica]:
    """Start an operator and its kube-scheduler in addition to the lab's, under the replica's name as host name.

    Args:
        lab: whose control plane and nodes it uses.
        name: of the replica.
        config: settings that differ from those of the lab's operator.
        election: what differs from the chart in how kube-scheduler elects.
    """
    await _require_host_names()
    extender_port, health_port = find_free_ports(2)
    folder = lab.folder / name
    folder.mkdir()
    server = {"extender_port": extender_port, "health_host": LOOPBACK, "health_port": health_port}
    file = folder / "operator.yaml"
    base = yaml.safe_load((lab.folder / "operator.yaml").read_text())
    file.write_text(yaml.safe_dump({**base, "log": {"format": "text"}, **config, "server": server}))
    kubeconfig = lab.control_plane.write_kubeconfig(OPERATOR_USER)
    argv = [sys.executable, "-m", "perllm", "run", "--config", str(file), "--kubeconfig", str(kubeconfig)]
    starts = folder / "starts.json"
    argv += ["--starts", str(starts)]
    operator = Process(
        "operator", [*on_host(name), "env", f"POD_NAMESPACE={NAMESPACE}", *argv], log_file=folder / "operator.log"
    )
    replica = OperatorReplica(
        name, lab, operator, starts, f"http://{LOOPBACK}:{health_port}", f"http://{LOOPBACK}:{extender_port}"
    )
    configuration = scheduler_configuration(
        replica.extender_url,
        config.get("scheduler_name", "perllm"),
        lease=config.get("leader_lease", ""),
        namespace=NAMESPACE,
    )
    configuration["leaderElection"].update(election or {})
    try:
        await operator.start()
        await lab.control_plane.start_scheduler(name, configuration, user=SCHEDULER_USER, prefix=on_host(name))
        yield replica
    finally:
        await operator.stop()


@asynccontextmanager
async def open_pair(lab: Lab, election: Mapping[str, str] | None = None) -> AsyncIterator[Pair]:
    """Start two replicas in place of the lab's own operator, which elect as the chart has it, but for `election`."""
    await lab.operator.stop()
    await lab.control_plane.stop_component(SCHEDULER_USER)
    users = rbac_user(OPERATOR_USER), rbac_user(SCHEDULER_USER)
    for manifest in build_manifests(*users, namespace=NAMESPACE, lease=LEASE):
        if manifest["metadata"].get("namespace"):
            await lab.client.post(collection_path(manifest), manifest)
    async with AsyncExitStack() as stack:
        first, second = [
            await stack.enter_async_context(open_replica(lab, name, {"leader_lease": LEASE}, election=election))
            for name in ("pod-a", "pod-b")
        ]
        yield first, second


async def repair(replicas: Pair) -> Pair:
    """Start what an earlier test has ended; return the active replica and the standby."""
    for replica in replicas:
        replica.forget_starts()
        await replica.start()
    await wait_until(lambda: _one_is_active(replicas), timeout_s=PATIENT_LEASE_S + SLACK_S)
    first, second = replicas
    return (first, second) if await first.is_active() else (second, first)


async def _one_is_active(replicas: Pair) -> bool:
    active = [await replica.is_active() for replica in replicas]
    return active.count(True) == 1 and all([(await replica.ask("readyz"))[0] == 200 for replica in replicas])


def on_host(name: str) -> tuple[str, ...]:
    """Return the prefix of a command that gives it a host name of its own, as root or with a user namespace."""
    return ("unshare", "--map-root-user", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', name)


async def _require_host_names() -> None:
    """Skip where a process cannot have a host name of its own, unless the environment requires it."""
    child = await asyncio.create_subprocess_exec(*on_host("any"), "true", stderr=asyncio.subprocess.PIPE)
    _, errors = await child.communicate()
    if child.returncode == 0:
        return
    hindrance = f"a process cannot have a host name of its own here: {errors.decode().strip()}"
    if os.environ.get("PERLLM_REQUIRE_REAL_NODE"):
        pytest.fail(hindrance)
    pytest.skip(hindrance)
