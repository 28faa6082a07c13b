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

FOLDER = Path(__file__).parent / "go"
CONTROL_PLANE = FOLDER / "control_plane"


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
        folder: holds the sources.
        package: that is built.
        flags: arguments of `go build` that change the binary.
        programs: that the binary can be; it goes by the name it is called with.
        requirements: file that, with its .sum, pins every source.
        is_pinned: whether the programs must be of this release, so that none that are installed will do.
    """

    name: str
    folder: Path
    package: str
    flags: tuple[str, ...]
    programs: tuple[Program, ...]
    requirements: str = "go.mod"
    is_pinned: bool = False

    @property
    def go_version(self) -> tuple[int, ...]:
        """The oldest Go release that can build the module."""
        line = re.search(r"^go (\S+)$", (self.folder / self.requirements).read_text(), re.MULTILINE)
        assert line is not None, f"{self.folder / self.requirements} names no Go release"
        return parse_version(line[1])

    @property
    def sources(self) -> list[Path]:
        """The files that the binary is built from; the requirements of other releases are none of them."""
        own = {self.requirements, str(Path(self.requirements).with_suffix(".sum"))}
        files = (file for file in sorted(self.folder.iterdir()) if file.is_file())
        return [file for file in files if file.name in own or file.suffix not in {".mod", ".sum"}]


def parse_version(text: str) -> tuple[int, ...]:
    """Parse the first dotted version in a text; empty if there is none."""
    found = re.search(r"\d+(?:\.\d+)+", text)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def read_release(module_file: Path, required: str) -> str:
    """Read which release of a module a go.mod file requires, such as v1.37.2."""
    line = re.search(rf"^\s*(?:require )?{re.escape(required)} (v\S+)", module_file.read_text(), re.MULTILINE)
    assert line is not None, f"{module_file} does not require {required}"
    return line[1]


def list_releases(folder: Path = CONTROL_PLANE) -> dict[str, str]:
    """Return the file of requirements for each minor version of Kubernetes that the lab can be, oldest first."""
    files = [file for file in folder.iterdir() if file.suffix == ".mod"]
    minors = {parse_version(read_release(file, "k8s.io/kubernetes"))[:2]: file.name for file in files}
    return {".".join(map(str, minor)): minors[minor] for minor in sorted(minors)}


def list_modules(kubernetes: str = "") -> tuple[Module, ...]:
    """Return the modules of the lab, with a minor version of Kubernetes such as 1.32; the newest if empty.

    Raises:
        KeyError: the lab cannot be of that version.
    """
    return (
        _describe_control_plane(list_releases()[kubernetes] if kubernetes else "go.mod"),
        Module(
            name="prometheus",
            folder=FOLDER / "prometheus",
            package="tool",
            # Without service discovery for a dozen clouds it needs half the modules; static and file discovery remain.
            flags=("-tags=remove_all_sd", "-ldflags=-s -w"),
            programs=(Program("prometheus", (3, 0)),),
        ),
    )


def _describe_control_plane(requirements: str) -> Module:
    is_newest = requirements == "go.mod"
    return Module(
        name="control-plane" if is_newest else f"control-plane-{Path(requirements).stem}",
        folder=CONTROL_PLANE,
        package=".",
        flags=(
            *(() if is_newest else (f"-modfile={requirements}",)),
            *stamp_release(read_release(CONTROL_PLANE / requirements, "k8s.io/kubernetes")),
        ),
        programs=(
            Program("etcd", (3, 6)),
            Program("kube-apiserver", (1, 37)),
            Program("kube-controller-manager", (1, 37)),
            Program("kube-scheduler", (1, 37)),
            Program("kubectl", (1, 36), ("version", "--client")),
        ),
        requirements=requirements,
        is_pinned=not is_newest,
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
    for file in module.sources:
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
