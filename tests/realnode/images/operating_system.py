"""A base for the operator's image without a registry: a fresh installation of the distribution of this machine."""

import hashlib
import os
import platform
import tempfile
from collections.abc import Sequence
from pathlib import Path

from perllm_lab.kubernetes.build import ToolchainError, run
from realnode.images.builder import ImageBuilder, Recipe

PROGRAMS = ("apt-get", "mmdebstrap", "unshare")
_PACKAGES = ("ca-certificates", "python3", "python3-venv")
# A container needs no manuals.
_EXCLUDED = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")
_DOCKERFILE = "FROM scratch\nADD rootfs.tar /\n"
_KEY_LENGTH = 16
_TAIL_LINES = 15


async def provide_base(builder: ImageBuilder) -> str:
    """Build the base unless the builder's storage has it, and return its name.

    Raises:
        ToolchainError: it could not be built.
    """
    release = platform.freedesktop_os_release()
    name = f"localhost/perllm-lab/{release['ID']}-python:{_compute_key(release['VERSION_CODENAME'])}"
    if not await builder.holds(name):
        with tempfile.TemporaryDirectory() as text:
            context = Path(text)
            await _install(release["ID"], release["VERSION_CODENAME"], context / "rootfs.tar")
            (context / "Dockerfile").write_text(_DOCKERFILE)
            await builder.build(Recipe(name, context))
    return name


async def _install(distribution: str, codename: str, rootfs: Path) -> None:
    # From the package sources of this machine, including security updates.
    wanted = ("--format", "$(ORIGIN) deb $(SITE) $(CODENAME) $(COMPONENT)", "Created-By: Packages")
    lines = await _run(("apt-get", "indextargets", *wanted))
    origin = f"{distribution.title()} "
    sources = rootfs.with_name("sources.list")
    sources.write_text("".join(f"{line.removeprefix(origin)}\n" for line in lines if line.startswith(origin)))
    options = ("--mode=root", "--variant=minbase", f"--include={','.join(_PACKAGES)}")
    excluded = (f"--dpkgopt=path-exclude={pattern}" for pattern in _EXCLUDED)
    argv = ("mmdebstrap", *options, *excluded, codename, str(rootfs), str(sources))
    # Its mounts end with its namespaces.
    await _run(("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", *argv))


async def _run(argv: Sequence[str]) -> list[str]:
    lines: list[str] = []
    if await run(argv, lines.append, os.environ) != 0:
        tail = "\n".join(lines[-_TAIL_LINES:])
        raise ToolchainError(f"A base image could not be built: `{' '.join(argv)}` failed.\n{tail}")
    return lines


def _compute_key(codename: str) -> str:
    parts = (codename, platform.machine(), *_PACKAGES, *_EXCLUDED, _DOCKERFILE)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:_KEY_LENGTH]
