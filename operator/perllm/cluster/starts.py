"""Recognises an operator that crashes repeatedly, by a file that outlives its process."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PERIOD_S = 120.0
MAX_STARTS = 3
"""Kubelet starts a container for the fourth time half a minute after its first crash, and before the first start the
pod did not hold the Lease."""


@dataclass(frozen=True, slots=True)
class StartRecord:
    """The starts of the last two minutes while the pod held the Lease.

    Attributes:
        file: holds their times; must be writable, and is created when missing.
        unix_now: wall clock; the monotonic one starts again with the machine.
    """

    file: Path
    unix_now: Callable[[], float]

    def add(self) -> bool:
        """Add a start and return whether there have been so many that the operator cannot be healthy.

        Raises:
            OSError: the file cannot be written.
        """
        now_s = self.unix_now()
        starts = [one for one in self._read() if now_s - PERIOD_S <= one <= now_s]
        self.file.write_text(json.dumps([*starts, now_s]), encoding="utf-8")
        return len(starts) + 1 >= MAX_STARTS

    def _read(self) -> list[float]:
        """Return all recorded times; none if the file is missing, or was cut off by a crash."""
        try:
            times = json.loads(self.file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return []
        return [one for one in times if isinstance(one, int | float)] if isinstance(times, list) else []
