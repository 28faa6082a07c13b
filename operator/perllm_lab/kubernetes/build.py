"""Build Go modules: once, with progress shown, and never leaving a partial result behind."""

import asyncio
import contextlib
import fcntl
import os
import re
import shutil
from asyncio.subprocess import PIPE
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from perllm_lab.kubernetes.modules import Module
from perllm_lab.kubernetes.process import end, spawn

_LOCK_INTERVAL_S = 0.2
_TAIL_LINES = 25
# A line of `go build -v` for one package; every other line has spaces or colons in it.
_PACKAGE_LINE = re.compile(r"[^\s:#]+")


class ToolchainError(RuntimeError):
    """A program could neither be found nor built."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one module's programs are.

    Attributes:
        module: name of the module.
        stage: the current step; `waiting` means that another process is building the same module.
        done: modules downloaded so far, or packages compiled so far.
        total: packages to compile; 0 while that is not known.
    """

    module: str
    stage: Literal["waiting", "installing go", "downloading", "compiling", "done"]
    done: int = 0
    total: int = 0


Report = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Go:
    """A Go toolchain and the environment to call it with."""

    executable: Path
    environment: Mapping[str, str]


async def build(module: Module, target: Path, go: Go, report: Report) -> None:
    """Build a module into a folder that appears only when it is complete.

    The caller holds the lock of the target.

    Raises:
        ToolchainError: the build failed; the message quotes the end of its output.
    """
    partial = target.with_name(f"{target.name}.partial")
    _remove(partial)
    partial.mkdir(parents=True)
    try:
        await _compile(module, partial, go, report)
        _remove(target)
        partial.rename(target)
    finally:
        _remove(partial)


async def run(
    argv: Sequence[str | Path],
    on_line: Callable[[str], None],
    environment: Mapping[str, str],
    folder: Path | None = None,
) -> int:
    """Run a command, pass its output on line by line, and return its exit code; it ends when this is cancelled."""
    child = await spawn([str(part) for part in argv], output=PIPE, environment=environment, folder=folder)
    assert child.stdout is not None
    try:
        async for line in child.stdout:
            on_line(line.decode(errors="replace").rstrip())
        return await child.wait()
    finally:
        await end(child)


@contextlib.asynccontextmanager
async def hold_lock(file: Path, on_wait: Callable[[], None]) -> AsyncIterator[None]:
    """Hold a lock between processes; the kernel releases it when its holder dies.

    Args:
        file: is locked; never removed, because that would admit a second holder.
        on_wait: called once if another process holds the lock.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as handle:
        if not _try_lock(handle.fileno()):
            on_wait()
            while not _try_lock(handle.fileno()):  # noqa: ASYNC110 (a lock between processes has no event)
                await asyncio.sleep(_LOCK_INTERVAL_S)
        yield


async def _compile(module: Module, folder: Path, go: Go, report: Report) -> None:
    go = Go(go.executable, {**go.environment, "GOTMPDIR": str(folder)})
    package = (*module.flags, module.package)
    output = _Output(lambda count: report(Progress(module.name, "downloading", count)))
    await _call(go, module, ("list", "-deps", *package), output)
    total = output.packages
    compiled = _Output(on_package=lambda count: report(Progress(module.name, "compiling", min(count, total), total)))
    report(Progress(module.name, "compiling", 0, total))
    program = folder / module.name
    await _call(go, module, ("build", "-v", "-trimpath", "-buildvcs=false", "-o", str(program), *package), compiled)
    for name in (program.name for program in module.programs):
        if name != module.name:
            (folder / name).symlink_to(module.name)
    report(Progress(module.name, "done", total, total))


async def _call(go: Go, module: Module, arguments: Sequence[str], output: "_Output") -> None:
    code = await run((go.executable, *arguments), output.take, go.environment, module.folder)
    if code != 0:
        raise ToolchainError(
            f"Building {module.name} with {go.executable} failed (exit code {code}). It needs about 8 GB of disk, 3 GB"
            " of memory and a Go module proxy (GOPROXY); run the same command again when that is fixed, and it"
            f" continues where it stopped. The end of the output:\n{output.tail}"
        )


class _Output:
    """Counts the downloads and packages that the go command reports, and keeps the end of its other output."""

    def __init__(
        self,
        on_download: Callable[[int], None] = lambda count: None,
        on_package: Callable[[int], None] = lambda count: None,
    ) -> None:
        self.packages = 0
        self._downloads = 0
        self._on_download = on_download
        self._on_package = on_package
        self._lines: deque[str] = deque(maxlen=_TAIL_LINES)

    @property
    def tail(self) -> str:
        return "\n".join(self._lines)

    def take(self, line: str) -> None:
        if line.startswith("go: downloading "):
            self._downloads += 1
            self._on_download(self._downloads)
        elif _PACKAGE_LINE.fullmatch(line):
            self.packages += 1
            self._on_package(self.packages)
        else:
            self._lines.append(line)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _remove(folder: Path) -> None:
    if os.path.lexists(folder):
        shutil.rmtree(folder)
