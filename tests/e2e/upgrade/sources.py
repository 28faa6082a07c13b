"""The code and the chart of an earlier version, taken from the history of the repository."""

import asyncio
import io
import shutil
import tarfile
from asyncio.subprocess import PIPE
from pathlib import Path

ROOT = Path(__file__).parents[3]
PARTS = ("operator/perllm", "charts/perllm")


class HistoryError(Exception):
    """The history does not contain a commit."""


async def provide_source(commit: str, cache_folder: Path) -> Path:
    """Return a folder with the operator and the chart of a commit, which is kept for later runs.

    Raises:
        HistoryError: this clone does not have the commit.
    """
    folder = cache_folder / "sources" / commit
    if not folder.exists():
        partial = folder.with_name(f"{commit}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        with tarfile.open(fileobj=io.BytesIO(await _archive(commit))) as archive:
            archive.extractall(partial, filter="data")
        partial.rename(folder)
    return folder


async def _archive(commit: str) -> bytes:
    child = await asyncio.create_subprocess_exec(
        "git", "-C", str(ROOT), "archive", commit, *PARTS, stdout=PIPE, stderr=PIPE
    )
    output, errors = await child.communicate()
    if child.returncode != 0:
        words = f"{errors.decode().strip()}; a shallow clone is completed by `git fetch --unshallow`"
        raise HistoryError(f"the history here does not contain {commit}: {words}")
    return output
