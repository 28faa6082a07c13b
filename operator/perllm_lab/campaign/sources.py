"""The code that a result depends on, as a hash."""

import ast
import platform
from collections.abc import Iterator
from hashlib import sha256
from importlib.resources import files
from pathlib import Path

import numpy as np

PACKAGES = ("perllm", "perllm_lab")
ROOTS = ("perllm_lab.policies", "perllm_lab.simulator.experiment", "perllm_lab.report.digest")
"""What builds a policy, runs it, and takes its figures."""

DATA = ("perllm_lab/baselines/tuned.json", "perllm_lab/baselines/agod_weights.npz")
"""Parameters and weights of baselines."""


def hash_sources(folder: Path | None = None) -> str:
    """Return a hash of every module of ours that the roots import, of the data they read, and of Python and numpy.

    Args:
        folder: the one that has our packages; None for that of this code.
    """
    base = folder or Path(str(files(PACKAGES[1]))).parent
    digest = sha256(f"{platform.python_version()} {platform.machine()} {np.__version__}".encode())
    for path in [*find_modules(base), *filter(Path.is_file, map(base.joinpath, DATA))]:
        digest.update(path.relative_to(base).as_posix().encode())
        digest.update(sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def find_modules(base: Path) -> list[Path]:
    """Return the files of the modules that the roots import, directly or not, in the order of their names."""
    found: dict[str, Path] = {}
    names = list(ROOTS)
    while names:
        name = names.pop()
        path = _locate(base, name)
        if path is None or name in found:
            continue
        found[name] = path
        names += [name.rpartition(".")[0], *_read_imports(path)]
    return [found[name] for name in sorted(found)]


def _locate(base: Path, name: str) -> Path | None:
    if name.split(".")[0] not in PACKAGES:
        return None
    path = base.joinpath(*name.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def _read_imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
