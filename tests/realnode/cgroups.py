"""Control groups, which do not end with a namespace: created under a name of their owner, removed once it has ended."""

import os
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_PREFIX = "perllm-lab-"
# A version 1 hierarchy accepts no process until these are set.
_CPUSET_FILES = ("cpuset.cpus", "cpuset.mems")


def make_cgroup(owner_pid: int, root: Path = _ROOT) -> str:
    """Create the group of an owner in every hierarchy and return its name below the roots."""
    name = f"{_PREFIX}{owner_pid}"
    for hierarchy in _list_hierarchies(root):
        folder = hierarchy / name
        folder.mkdir(exist_ok=True)
        for file in _CPUSET_FILES:
            if (hierarchy / file).exists():
                (folder / file).write_text((hierarchy / file).read_text())
    return name


def remove_cgroups(root: Path = _ROOT) -> None:
    """Remove the groups of owners that have ended, and of this process; they must hold no process."""
    for hierarchy in _list_hierarchies(root):
        for folder in hierarchy.glob(f"{_PREFIX}*"):
            owner = folder.name.removeprefix(_PREFIX)
            if owner == str(os.getpid()) or not Path("/proc", owner).exists():
                _remove(folder)


def _list_hierarchies(root: Path) -> list[Path]:
    """List the hierarchies: one with version 2, every mounted one with version 1."""
    if (root / "cgroup.controllers").exists():
        return [root]
    return sorted({folder.resolve() for folder in root.iterdir() if (folder / "cgroup.procs").exists()})


def _remove(folder: Path) -> None:
    # The files of a group cannot be removed; they vanish with its folders.
    for path, _, _ in os.walk(folder, topdown=False):
        os.rmdir(path)
