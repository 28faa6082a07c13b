"""Control groups, which no namespace removes: made under one name, and removed when their owner is gone."""

import os
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_PREFIX = "perllm-lab-"
# A version 1 hierarchy refuses every process until these are set.
_CPUSET_FILES = ("cpuset.cpus", "cpuset.mems")


def make_cgroup(owner_pid: int, root: Path = _ROOT) -> str:
    """Makes the group of a lab in every hierarchy and returns its name below the roots."""
    name = f"{_PREFIX}{owner_pid}"
    for hierarchy in _list_hierarchies(root):
        folder = hierarchy / name
        folder.mkdir(exist_ok=True)
        for file in _CPUSET_FILES:
            if (hierarchy / file).exists():
                (folder / file).write_text((hierarchy / file).read_text())
    return name


def remove_cgroups(root: Path = _ROOT) -> None:
    """Removes the groups of labs that run no more, and of this one; they must hold no process."""
    for hierarchy in _list_hierarchies(root):
        for folder in hierarchy.glob(f"{_PREFIX}*"):
            owner = folder.name.removeprefix(_PREFIX)
            if owner == str(os.getpid()) or not Path("/proc", owner).exists():
                _remove(folder)


def _list_hierarchies(root: Path) -> list[Path]:
    """Lists where groups are made: once with version 2, in every mounted hierarchy with version 1."""
    if (root / "cgroup.controllers").exists():
        return [root]
    return sorted({folder.resolve() for folder in root.iterdir() if (folder / "cgroup.procs").exists()})


def _remove(folder: Path) -> None:
    # The files of a group are no real files: only its folders can be removed, and that removes them.
    for path, _, _ in os.walk(folder, topdown=False):
        os.rmdir(path)
