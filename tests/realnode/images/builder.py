"""Container images, built by buildah in a storage of its own; no registry is contacted."""

import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from perllm_lab.kubernetes.build import ToolchainError, hold_lock, run
from realnode.overlay import supports_overlay

PROGRAMS = ("buildah", "unshare")
# Needs no container runtime.
_ISOLATION = "chroot"
# About ten changes of the sources. A build from nothing takes about two minutes.
_MOST_IMAGES = 120
_TAIL_LINES = 25


@dataclass(frozen=True, slots=True)
class Recipe:
    """How an image is built.

    Attributes:
        name: full name with a tag, as in a pod.
        context: folder with the Dockerfile and the files that it copies.
        arguments: values of the ARG instructions.
        secrets: files by the id of their mount.
    """

    name: str
    context: Path
    arguments: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, Path] = field(default_factory=dict)


class ImageBuilder:
    """Builds images; steps that have not changed come from the storage.

    Args:
        folder: keeps layers and archives for later runs.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def tidy(self) -> None:
        """Drop everything once layers of old sources have piled up; call it before a set of images is built.

        Raises:
            ToolchainError: something could not be removed.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        async with hold_lock(self._folder / "lock", lambda: None):
            listed: list[str] = []
            await self._call("images", "--all", "--quiet", on_line=listed.append)
            if len(listed) > _MOST_IMAGES:
                await self._run("rmi", "--all", "--force")

    async def holds(self, name: str) -> bool:
        """Return whether the storage has an image of this name."""
        return await self._call("inspect", "--type", "image", name, on_line=lambda line: None) == 0

    async def build(self, recipe: Recipe) -> str:
        """Build an image and return its id.

        Raises:
            ToolchainError: a step failed; the message quotes the end of its output.
        """
        file = self._folder / "image-id"
        await self._run("build", *_render_options(recipe), "--iidfile", str(file), str(recipe.context))
        return file.read_text().removeprefix("sha256:").strip()

    async def archive(self, recipe: Recipe) -> Path:
        """Build an image and return it as an archive.

        Raises:
            ToolchainError: a step failed; the message quotes the end of its output.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        async with hold_lock(self._folder / "lock", lambda: None):
            identity = await self.build(recipe)
            archive = self._folder / "archives" / _to_file_name(recipe.name) / f"{identity}.tar"
            if not archive.exists():
                await self._export(identity, recipe.name, archive)
        return archive

    async def _export(self, identity: str, name: str, archive: Path) -> None:
        # Only the newest archive of an image is kept.
        shutil.rmtree(archive.parent, ignore_errors=True)
        archive.parent.mkdir(parents=True)
        partial = archive.with_suffix(".partial")
        # This kind of archive is not compressed: that would cost more time than the disk space is worth.
        await self._run("push", "--quiet", identity, f"docker-archive:{partial}:{name}")
        partial.rename(archive)

    async def _run(self, *arguments: str) -> None:
        lines: list[str] = []
        if await self._call(*arguments, on_line=lines.append) != 0:
            tail = "\n".join(lines[-_TAIL_LINES:])
            raise ToolchainError(f"`buildah {' '.join(arguments)}` failed. The end of its output:\n{tail}")

    async def _call(self, *arguments: str, on_line: Callable[[str], None]) -> int:
        # vfs copies every layer, which is slow but works on every file system.
        driver = "overlay" if await supports_overlay(self._folder) else "vfs"
        storage = (f"--root={self._folder / driver}", f"--runroot={self._folder / driver}-run")
        # Mounts of an interrupted build end with its namespace.
        own = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
        return await run((*own, "buildah", f"--storage-driver={driver}", *storage, *arguments), on_line, os.environ)


def _render_options(recipe: Recipe) -> list[str]:
    options = ["--isolation", _ISOLATION, "--layers", "--pull-never", "--quiet", "--tag", recipe.name]
    for key, value in recipe.arguments.items():
        options += ["--build-arg", f"{key}={value}"]
    for key, file in recipe.secrets.items():
        options += ["--secret", f"id={key},src={file}"]
    return options


def _to_file_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", name)
