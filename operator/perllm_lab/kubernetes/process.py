"""Child processes that end with the lab, however it ends."""

import asyncio
import contextlib
import ctypes
import functools
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_POLL_INTERVAL_S = 0.03

GO_ENVIRONMENT = {"GOGC": "400"}
"""For programs in Go. By its default of 100, they collect the garbage of their few objects so often that a whole
control plane takes a fifth more processor time; this takes 0.5 GB more memory for all of them together."""


class ProcessError(RuntimeError):
    """A child process could not be started, or ended when it should not have."""


class Process:
    """One restartable child process with a log file of its own.

    Args:
        name: of the process in messages.
        argv: program and arguments.
        log_file: standard output and error of every start are appended to it.
        environment: replaces the inherited environment when given.
    """

    def __init__(
        self, name: str, argv: Sequence[str | Path], *, log_file: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.argv = tuple(str(part) for part in argv)
        self.log_file = log_file
        self._environment = environment
        self._child: asyncio.subprocess.Process | None = None

    @property
    def running(self) -> bool:
        """Whether the process has been started and has not ended."""
        return self._child is not None and self._child.returncode is None

    @property
    def pid(self) -> int | None:
        """Process id, or None while it does not run."""
        return self._child.pid if self._child is not None and self.running else None

    async def start(self) -> None:
        """Start the process; do nothing if it is running.

        Raises:
            ProcessError: the program cannot be executed, or this is not the main thread.
        """
        if self.running:
            return
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("ab") as log:
            try:
                self._child = await spawn(self.argv, output=log.fileno(), environment=self._environment)
            except OSError as error:
                raise ProcessError(f"{self.name} cannot be started: {error}. Is {self.argv[0]} executable?") from error

    def check(self) -> None:
        """Do nothing while it runs.

        Raises:
            ProcessError: it has ended by itself; the message quotes the end of the log.
        """
        if not self.running:
            raise ProcessError(self._describe("has ended"))

    async def stop(self, *, grace_s: float = 10.0) -> None:
        """Terminate the process (SIGTERM), and kill it (SIGKILL) after the grace period."""
        if self._child is not None:
            await end(self._child, grace_s=grace_s)

    async def kill(self) -> None:
        """Kill the process at once (SIGKILL), as a crash would."""
        await self.stop(grace_s=0.0)

    async def wait_until(self, check: Callable[[], Awaitable[bool]], *, timeout_s: float) -> None:
        """Wait until the check holds.

        Raises:
            ProcessError: the process ended, or timed out; the message quotes the end of the log.
        """
        loop = asyncio.get_running_loop()
        limit = loop.time() + timeout_s
        while not await check():
            if not self.running:
                raise ProcessError(self._describe("ended during start-up"))
            if loop.time() > limit:
                raise ProcessError(self._describe(f"was not ready within {timeout_s:g} s"))
            await asyncio.sleep(_POLL_INTERVAL_S)
        # Another process may hold the port and answer the check while this one failed to bind it.
        if not self.running:
            raise ProcessError(self._describe("ended during start-up"))

    def _describe(self, what: str) -> str:
        code = self._child.returncode if self._child is not None else None
        ending = f" with exit code {code}" if code is not None else ""
        return f"{self.name} {what}{ending}. The end of its log {self.log_file}:\n{read_tail(self.log_file)}"


async def spawn(
    argv: Sequence[str], *, output: int, environment: Mapping[str, str] | None = None, folder: Path | None = None
) -> asyncio.subprocess.Process:
    """Start a program in a new session; the kernel kills it when this process ends, however that happens.

    Args:
        argv: program and arguments.
        output: file descriptor or asyncio.subprocess constant for standard output; standard error joins it.
        environment: replaces the inherited environment when given.
        folder: working folder.

    Raises:
        ProcessError: not called from the main thread.
        OSError: the program cannot be executed.
    """
    # Linux sends the parent-death signal when the *thread* that forked ends, and only the main thread lives as long as
    # the process: the child of a worker thread would be killed as soon as that thread ends.
    if threading.current_thread() is not threading.main_thread():
        raise ProcessError("Child processes must be started from the main thread; run the event loop there.")
    return await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=output,
        stderr=asyncio.subprocess.STDOUT,
        env=environment,
        cwd=folder,
        # In a new session, so that Ctrl-C in the terminal reaches only the lab, which then stops its children in order.
        start_new_session=True,
        preexec_fn=_prepare_death_with_parent(),
    )


async def end(child: asyncio.subprocess.Process, *, grace_s: float = 10.0) -> None:
    """Terminate a process of `spawn` and all its descendants: SIGTERM, then SIGKILL after the grace period."""
    if child.returncode is not None:
        return
    if grace_s > 0:
        _signal_group(child, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(child.wait(), grace_s)
    # Also when the process itself has ended: a descendant may have ignored SIGTERM.
    _signal_group(child, signal.SIGKILL)
    await child.wait()


def read_tail(file: Path, *, lines: int = 15, size_bytes: int = 8192) -> str:
    """Read the last lines of a log; empty if there is no log."""
    if not file.exists():
        return ""
    with file.open("rb") as log:
        log.seek(max(0, file.stat().st_size - size_bytes))
        return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])


def _signal_group(child: asyncio.subprocess.Process, number: signal.Signals) -> None:
    # The group id equals the process id because the child leads its session.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, number)


def _prepare_death_with_parent() -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None  # other systems have no parent-death signal; an orderly exit still stops every child
    # Loaded before the fork: between fork and exec as little as possible may be allocated or imported.
    return functools.partial(_die_with_parent, ctypes.CDLL(None, use_errno=True), os.getpid())


def _die_with_parent(libc: ctypes.CDLL, parent_pid: int) -> None:
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # The parent may have died before the line above, and then the signal is never sent.
    if os.getppid() != parent_pid:
        os._exit(1)
