"""A file by which one process at a time claims a folder; the kernel releases it however that process ends."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


class ClaimedError(Exception):
    """Another process has the folder."""


@contextmanager
def claim(file: Path) -> Iterator[None]:
    """Hold the file, with the id of this process in it.

    Raises:
        ClaimedError: another process holds it.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+") as handle:
        if not _try_lock(handle):
            raise ClaimedError(f"process {find_holder(file)} works in {file.parent} already; stop it first")
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        yield


def find_holder(file: Path) -> int | None:
    """Return the id of the process that holds the file; None if none does, regardless of its content."""
    try:
        handle = file.open()
    except FileNotFoundError:
        return None
    with handle:
        return None if _try_lock(handle) else int(handle.read())


def _try_lock(handle: IO[str]) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
