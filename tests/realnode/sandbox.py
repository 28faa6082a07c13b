"""Namespaces that hold a real node: its mounts, processes and links end with them, however the test run ends."""

import contextlib
import json
import os
import random
from asyncio.subprocess import PIPE
from collections.abc import Sequence
from ipaddress import IPv4Address
from pathlib import Path
from types import TracebackType
from typing import Self

from perllm_lab.kubernetes.process import Process, ProcessError, spawn
from realnode.cgroups import make_cgroup, remove_cgroups
from realnode.network import NodeNetwork, choose_network

_START_TIMEOUT_S = 10.0
# The first process of a PID namespace: when it ends, the kernel kills all others. It also reaps orphans.
_FIRST_PROCESS = 'trap "exit 0" TERM; while :; do sleep 3600 & wait $!; done'
# Kubernetes' programs and network plugins use fixed paths. Inside, these are bind mounts of the sandbox's folder; /run,
# which holds sockets, is in memory.
_LINKED_FOLDERS = ("lib", "log")
_LINK_PREFIX = "perllm-"


class Sandbox:
    """PID, mount and network namespaces with a link to this machine; open inside the `async with` block.

    Args:
        folder: used by this run only; holds what is written to /var/lib and /var/log inside.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._link = f"{_LINK_PREFIX}{os.getpid()}"
        self._first = Process(
            "sandbox",
            (
                *("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
                *("--propagation", "private", "--", "sh", "-c", _FIRST_PROCESS),
            ),
            log_file=folder / "sandbox.log",
        )
        self._pid = 0
        self.network: NodeNetwork
        self.cgroup = ""

    async def __aenter__(self) -> Self:
        try:
            await self._open()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._close()

    def wrap(self, *argv: str | Path) -> tuple[str, ...]:
        """Return the command line that runs a program inside."""
        return ("nsenter", f"--target={self._pid}", "--mount", "--net", "--pid", "--", *(str(part) for part in argv))

    async def run(self, *argv: str | Path) -> str:
        """Run a program inside and return its output.

        Raises:
            ProcessError: it failed; the message quotes its output.
        """
        return await run(self.wrap(*argv))

    async def _open(self) -> None:
        await remove_leftovers()
        await self._first.start()
        await self._first.wait_until(self._is_up, timeout_s=_START_TIMEOUT_S)
        await self._redirect_folders()
        self.network = choose_network(await _list_addresses(), random.Random())
        await self._connect()
        self.cgroup = make_cgroup(os.getpid())

    async def _is_up(self) -> bool:
        """Return whether the first process runs and has its own /proc, which is set up last."""
        found = _find_first_process(self._first.pid)
        self._pid = found or 0
        return found is not None

    async def _redirect_folders(self) -> None:
        await self.run("mount", "-t", "tmpfs", "tmpfs", "/run")
        for name in _LINKED_FOLDERS:
            folder = self._folder / "var" / name
            folder.mkdir(parents=True, exist_ok=True)
            await self.run("mount", "--bind", folder, f"/var/{name}")

    async def _connect(self) -> None:
        network, link = self.network, self._link
        await run(("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", str(self._pid)))
        width = network.link.prefixlen
        await self.run("ip", "link", "set", "lo", "up")
        await self.run("ip", "address", "add", f"{network.node}/{width}", "dev", "eth0")
        await self.run("ip", "link", "set", "eth0", "up")
        await run(("ip", "address", "add", f"{network.host}/{width}", "dev", link))
        await run(("ip", "link", "set", link, "up"))
        await run(("ip", "route", "add", str(network.pods), "via", network.node, "dev", link))

    async def _close(self) -> None:
        await self._first.stop()
        await remove_leftovers()


async def remove_leftovers() -> None:
    """Remove control groups and links of processes that have ended, and of this process once nothing runs in them.

    A link is removed with its namespace too, but that may take the kernel minutes.
    """
    remove_cgroups()
    for link in _list_removable_links():
        with contextlib.suppress(ProcessError):  # removed in the meantime
            await run(("ip", "link", "delete", link))


async def run(argv: Sequence[str | Path]) -> str:
    """Run a program and return its output.

    Raises:
        ProcessError: it failed; the message quotes its output.
    """
    child = await spawn([str(part) for part in argv], output=PIPE)
    printed, _ = await child.communicate()
    text = printed.decode(errors="replace")
    if child.returncode != 0:
        raise ProcessError(f"`{' '.join(map(str, argv))}` failed (exit code {child.returncode}): {text.strip()}")
    return text


def _list_removable_links() -> list[str]:
    links = [path.name for path in Path("/sys/class/net").glob(f"{_LINK_PREFIX}*")]
    owners = {link: link.removeprefix(_LINK_PREFIX) for link in links}
    return [link for link, pid in owners.items() if pid == str(os.getpid()) or not Path("/proc", pid).exists()]


def _find_first_process(parent_pid: int | None) -> int | None:
    children = Path(f"/proc/{parent_pid}/task/{parent_pid}/children").read_text().split()
    ready = [pid for pid in children if Path("/proc", pid, "comm").read_text().strip() == "sh"]
    return int(ready[0]) if ready else None


async def _list_addresses() -> list[IPv4Address]:
    devices = json.loads(await run(("ip", "-json", "-4", "address")))
    return [IPv4Address(one["local"]) for device in devices for one in device.get("addr_info", ())]
