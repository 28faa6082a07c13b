"""Virtual environments with packages that lock files pin, installed into a cache once."""

import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from perllm_lab.kubernetes.build import ToolchainError, hold_lock, run

_READY = "ready"


def is_installed(folder: Path) -> bool:
    """Whether an environment is complete."""
    return (folder / _READY).exists()


async def install_environment(
    folder: Path,
    locks: Sequence[Path],
    *,
    compiled: Path | None = None,
    variables: Mapping[str, str] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Create a virtual environment unless it is complete; of several processes one does it.

    Args:
        folder: of the environment.
        locks: files with all packages and their hashes; these are installed as they were built.
        compiled: the same, of packages that are compiled with those of `locks`.
        variables: of the environment in which they are compiled.
        say: called with what is done.

    Raises:
        ToolchainError: it could not be installed; the message quotes the end of the output.
    """
    async with hold_lock(folder.with_name(f"{folder.name}.lock"), lambda: say("waiting for another installation")):
        if is_installed(folder):
            return
        # Its scripts hold absolute paths, so it is created in place, and a marker says that it is complete.
        shutil.rmtree(folder, ignore_errors=True)
        pip = (str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes")
        commands: list[tuple[str, ...]] = [(sys.executable, "-m", "venv", str(folder))]
        commands += [(*pip, "--only-binary", ":all:", "--requirement", str(lock)) for lock in locks]
        if compiled is not None:
            commands.append((*pip, "--no-build-isolation", "--requirement", str(compiled)))
        environment = {**os.environ, **(variables or {}), "PATH": f"{folder}/bin:{os.environ['PATH']}"}
        for argv in commands:
            say(" ".join(argv))
            await _call(folder.name, argv, environment)
        (folder / _READY).touch()


async def _call(name: str, argv: tuple[str, ...], environment: Mapping[str, str]) -> None:
    lines: list[str] = []
    if await run(argv, lines.append, environment) != 0:
        tail = "\n".join(lines[-15:])
        raise ToolchainError(f"{name} could not be installed: `{' '.join(argv)}` failed.\n{tail}")
