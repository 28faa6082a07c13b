"""Jobs for several processes, in a module that those find."""

import time
from pathlib import Path

from perllm_lab.claim import claim


def hold(file: Path, seconds: float) -> None:
    """Hold a file for some time."""
    with claim(file):
        time.sleep(seconds)
