"""The Go modules that the lab's programs are built from."""

import hashlib
import platform
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_VERSION_PACKAGE = "k8s.io/component-base/version"
_KEY_LENGTH = 16


@dataclass(frozen=True, slots=True)
class Program:
    """A program, the oldest (major, minor) version that fits, and how to ask it for its version."""

    name: str
    minimum: tuple[int, int]
    version_arguments: tuple[str, ...] = ("--version",)


@dataclass(frozen=True, slots=True)
class Module:
    """A Go module of this repository, and the names that its one binary can be called by.

    Attributes:
        folder: holds go.mod and go.sum, which pin every source.
        package: that is built.
        flags: arguments of `go build` that change the binary.
        programs: that the binary can be; it goes by the name it is called with.
    """

    name: str
    folder: Path
    package: str
    flags: tuple[str, ...]
    programs: tuple[Program, ...]

    @property
    def go_version(self) -> tuple[int, ...]:
        """The oldest Go release that can build the module."""
        line = re.search(r"^go (\S+)$", (self.folder / "go.mod").read_text(), re.MULTILINE)
        assert line is not None, f"{self.folder}/go.mod names no Go release"
        return parse_version(line[1])


def parse_version(text: str) -> tuple[int, ...]:
    """Parse the first dotted version in a text; empty if there is none."""
    found = re.search(r"\d+(?:\.\d+)+", text)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def read_release(module_file: Path, required: str) -> str:
    """Read which release of a module a go.mod file requires, such as v1.37.2."""
    line = re.search(rf"^\s*(?:require )?{re.escape(required)} (v\S+)", module_file.read_text(), re.MULTILINE)
    assert line is not None, f"{module_file} does not require {required}"
    return line[1]


def list_modules(folder: Path = Path(__file__).parent / "go") -> tuple[Module, ...]:
    """Return the modules of the lab."""
    kubernetes = read_release(folder / "control_plane" / "go.mod", "k8s.io/kubernetes")
    return (
        Module(
            name="control-plane",
            folder=folder / "control_plane",
            package=".",
            flags=stamp_release(kubernetes),
            programs=(
                Program("etcd", (3, 6)),
                Program("kube-apiserver", (1, 37)),
                Program("kube-controller-manager", (1, 37)),
                Program("kube-scheduler", (1, 37)),
                Program("kubectl", (1, 36), ("version", "--client")),
            ),
        ),
        Module(
            name="prometheus",
            folder=folder / "prometheus",
            package="tool",
            # Without service discovery for a dozen clouds it needs half the modules; static and file discovery remain.
            flags=("-tags=remove_all_sd", "-ldflags=-s -w"),
            programs=(Program("prometheus", (3, 0)),),
        ),
    )


def stamp_release(release: str) -> tuple[str, ...]:
    """Return the linker flag that stamps a release into Kubernetes' components and strips debug symbols."""
    major, minor, *_ = parse_version(release)
    names = {"gitVersion": release, "gitMajor": str(major), "gitMinor": str(minor)}
    stamps = (f"-X {_VERSION_PACKAGE}.{name}={value}" for name, value in names.items())
    return (" ".join(("-ldflags=-s -w", *stamps)),)


def compute_key(module: Module, *, system: str = sys.platform, machine: str = platform.machine()) -> str:
    """Compute a cache key from everything that goes into the binary."""
    digest = hashlib.sha256()
    for part in (system, machine, module.package, *module.flags, *(program.name for program in module.programs)):
        digest.update(part.encode() + b"\0")
    for file in sorted(path for path in module.folder.iterdir() if path.is_file()):
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:_KEY_LENGTH]


def group_by_module(names: Iterable[str], modules: Iterable[Module]) -> dict[Module, tuple[Program, ...]]:
    """Group programs by the module that provides them.

    Raises:
        KeyError: no module provides one of the programs.
    """
    owners = {program.name: (module, program) for module in modules for program in module.programs}
    groups: dict[Module, tuple[Program, ...]] = {}
    for module, program in (owners[name] for name in names):
        groups[module] = (*groups.get(module, ()), program)
    return groups
