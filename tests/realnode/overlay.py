"""Whether a file system supports overlay mounts, which save copying the layers of images."""

import os
import tempfile
from pathlib import Path

from perllm_lab.kubernetes.build import run

_PARTS = ("lower", "upper", "work", "merged")


async def supports_overlay(folder: Path) -> bool:
    """Try to mount an overlay there, which fails on a file system that is an overlay itself, as in a container."""
    os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as text:
        lower, upper, work, merged = (Path(text, part) for part in _PARTS)
        for part in (lower, upper, work, merged):
            os.mkdir(part)
        options = f"lowerdir={lower},upperdir={upper},workdir={work}"
        # In a mount namespace of its own, so it needs no unmount.
        argv = ("unshare", "--mount", "mount", "-t", "overlay", "overlay", "-o", options, merged)
        return await run(argv, lambda line: None, os.environ) == 0
