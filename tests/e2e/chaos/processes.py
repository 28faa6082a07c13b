"""Faults of processes: each is ended or stopped for a while, and works again afterwards, as kubelet would see to."""

import asyncio
import os
import signal
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from e2e.chaos.invariants import Span
from e2e.chaos.plan import FaultKind
from perllm_lab.kubernetes.process import Process, ProcessError, read_tail
from perllm_lab.lab import Lab

RESTORE_S = 90.0
RESTART_PAUSE_S = 0.5
POLL_S = 0.2


@dataclass(slots=True)
class Processes:
    """The processes of a lab.

    Attributes:
        lab: whose processes these are.
        agents: its processes with agents, by name.
        deaths: processes that ended although no fault ended them, each with the end of its log.
        absences: from when to when the operator was not there, in Unix time; its start is over once it is ready.
    """

    lab: Lab
    agents: Mapping[str, Process] = field(default_factory=dict)
    deaths: list[str] = field(default_factory=list)
    absences: list[Span] = field(default_factory=list)
    locks: dict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))

    @property
    def all(self) -> Mapping[str, Process]:
        lab = self.lab
        return {
            **lab.control_plane.processes,
            "prometheus": lab.prometheus.process,
            "operator": lab.operator,
            "nodes": lab.nodes,
            **self.agents,
        }

    async def strike(self, kind: FaultKind, name: str, lasts_s: float) -> None:
        """Let a process fail for a while; returns once it works again.

        Raises:
            ProcessError: it does not.
        """
        async with self.locks[name]:
            process = self.all[name]
            if kind is FaultKind.STOP:
                await _stop_for(process, lasts_s)
                return
            with self._note_absence(name):
                await (process.stop() if kind is FaultKind.TERMINATE else process.kill())
                await asyncio.sleep(lasts_s)
                await self._restore(name)

    async def watch(self) -> None:
        """Restart what ends by itself, until cancelled."""
        while True:
            for name, process in self.all.items():
                if not process.running and not self.locks[name].locked():
                    async with self.locks[name]:
                        self.deaths.append(f"{name} ended by itself: {read_tail(process.log_file, lines=3)}")
                        with self._note_absence(name):
                            await self._restore(name)
            await asyncio.sleep(POLL_S)

    @contextmanager
    def _note_absence(self, name: str) -> Iterator[None]:
        from_s = time.time()
        yield
        if name == "operator":
            self.absences.append((from_s, time.time()))

    async def _restore(self, name: str) -> None:
        """Start a process until it works: what it needs may be down too, and then some of them give up."""
        deadline_s = time.monotonic() + RESTORE_S
        while True:
            try:
                await self._start(name)
                return
            except ProcessError:
                if time.monotonic() > deadline_s:
                    raise
            await asyncio.sleep(RESTART_PAUSE_S)

    async def _start(self, name: str) -> None:
        starts = {
            "operator": self.lab.start_operator,
            "prometheus": self.lab.prometheus.start,
            "nodes": self.lab.start_nodes,
            **{name: process.start for name, process in self.agents.items()},
        }
        await starts.get(name, partial(self.lab.control_plane.start_component, name))()


async def _stop_for(process: Process, lasts_s: float) -> None:
    """Stop a process as a busy machine does: it does not answer, but its connections do not end."""
    pid = process.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(lasts_s)
    finally:
        os.kill(pid, signal.SIGCONT)
