"""What the parts of the benchmark share when they work on a real control plane."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from bench.fleets import PODS, TASKS
from perllm.cluster.client import Client, Object
from perllm.cluster.informer import Informer, keep_all

AT_A_TIME = 32
POLL_S = 0.2
TIMEOUT_S = 120.0
LARGEST = 4


@dataclass(slots=True)
class Bindings:
    """When each pod was first seen with a node, on the monotonic clock."""

    times_s: dict[str, float] = field(default_factory=dict)

    def see(self, old: Object | None, new: Object | None) -> None:
        """Take note of a pod that is bound."""
        if new is not None:
            self.times_s.setdefault(new["metadata"]["uid"], time.monotonic())

    def rate(self, start_s: float | None = None) -> float:
        """Return pods per second until the last binding, from `start_s` on or from the first binding."""
        last_s = max(self.times_s.values())
        if start_s is not None:
            return len(self.times_s) / (last_s - start_s)
        return (len(self.times_s) - 1) / (last_s - min(self.times_s.values()))


@contextmanager
def watch_bindings(client: Client) -> Iterator[Bindings]:
    """Follow the pods that have a node."""
    bindings = Bindings()
    informer = Informer(client, PODS, keep_all, bindings.see, query={"fieldSelector": "spec.nodeName!="})
    following = asyncio.get_running_loop().create_task(informer.run())
    try:
        yield bindings
    finally:
        following.cancel()


async def create_all(client: Client, path: str, bodies: Iterable[Object]) -> None:
    """Create objects in one burst, a bounded number at a time."""
    rest = iter(bodies)

    async def create() -> None:
        for body in rest:
            await client.post(path, body)

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_A_TIME):
            group.create_task(create())


async def clear(client: Client) -> None:
    """Delete all tasks and pods and wait until they are gone."""
    at_once = {"gracePeriodSeconds": 0, "propagationPolicy": "Background"}
    await client.delete(TASKS, at_once)
    await client.delete(PODS, at_once)

    async def gone() -> bool:
        return not any([(await client.get(path, limit="1"))["items"] for path in (TASKS, PODS)])

    await wait_until(gone, "tasks and pods are gone")


async def wait_until(check: Callable[[], Awaitable[bool]], what: str, *, poll_s: float = POLL_S) -> None:
    """Wait until a check holds.

    Raises:
        RuntimeError: it does not within the time that it should take at most.
    """
    try:
        async with asyncio.timeout(TIMEOUT_S):
            while not await check():  # noqa: ASYNC110 - what is waited for happens in other processes
                await asyncio.sleep(poll_s)
    except TimeoutError as error:
        raise RuntimeError(f"not within {TIMEOUT_S:g} s: {what}; the logs tell why (--keep FOLDER)") from error


async def read_metric(health_url: str, name: str) -> float:
    """Return a metric of the operator, summed over its labels."""
    return (await read_metrics(health_url, name))[name]


async def read_metrics(health_url: str, *names: str) -> dict[str, float]:
    """Return metrics of the operator by name, each summed over its labels."""
    sums = dict.fromkeys(names, 0.0)
    # The others are left out, since rendering them all would be a tenth of what the operator computes.
    wanted = [("name[]", name) for name in names]
    async with aiohttp.ClientSession() as session, session.get(f"{health_url}/metrics", params=wanted) as answer:
        for family in text_string_to_metric_families(await answer.text()):
            for one in family.samples:
                if one.name in sums:
                    sums[one.name] += one.value
    return sums


def cpu_s(pid: int) -> float:
    """Return the processor seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mib(pid: int) -> float:
    """Return the resident set of a process."""
    return _read_status_mib(pid, "VmRSS")


def peak_memory_mib(pid: int) -> float:
    """Return the largest resident set that a process has had."""
    return _read_status_mib(pid, "VmHWM")


def _read_status_mib(pid: int, name: str) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))


class CpuUse:
    """Processor seconds of processes since the start of a measurement."""

    def __init__(self, pids: dict[str, int]) -> None:
        self._pids = {**pids, "benchmark": os.getpid()}
        self._before_s = {name: cpu_s(pid) for name, pid in self._pids.items()}

    def spent_s(self) -> dict[str, float]:
        """Return what each process has used, most first."""
        spent = {name: cpu_s(pid) - self._before_s[name] for name, pid in self._pids.items()}
        return dict(sorted(spent.items(), key=lambda item: -item[1]))


def describe_cpu(spent_s: dict[str, float], count: int) -> str:
    """Return who used the processors most, for each of `count` pods."""
    largest = ", ".join(f"{name} {1e3 * value / count:.1f}" for name, value in list(spent_s.items())[:LARGEST])
    return f"CPU ms a pod: {largest}, all {1e3 * sum(spent_s.values()) / count:.0f}"
