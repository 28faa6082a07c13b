"""Folders of runs."""

import shutil
from pathlib import Path


def empty_folder(folder: Path) -> Path:
    """Make a folder, without what an earlier run left in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
