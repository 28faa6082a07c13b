"""Files that are there completely or not at all."""

import os
from errno import EISDIR
from pathlib import Path
from tempfile import NamedTemporaryFile


def write_atomically(path: Path, text: str) -> None:
    """Writes a file completely or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        part = Path(file.name)
        try:
            file.write(text)
            file.close()
            # Temporary files are readable by their owner only; results are for all who may read the folder.
            part.chmod(0o644)
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def check_writable(path: Path) -> None:
    """Makes the folder of a file. Raises OSError if the file could not be written there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        raise IsADirectoryError(EISDIR, os.strerror(EISDIR), str(path))
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}."):
        pass
