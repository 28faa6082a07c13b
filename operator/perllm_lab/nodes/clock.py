"""Simulated time, the event loop's time and the wall clock."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True, slots=True)
class Clock:
    """Simulated time runs `speed` times as fast as the wall clock and starts at 0 with the fleet.

    Attributes:
        monotonic: the event loop's clock, in seconds.
        loop_start_s: the event loop's time when the fleet started.
        wall_start_s: seconds since the epoch when the fleet started.
        speed: simulated seconds per wall second.
    """

    monotonic: Callable[[], float]
    loop_start_s: float
    wall_start_s: float
    speed: float

    def now_s(self) -> float:
        """Return the current simulated time in seconds."""
        return (self.monotonic() - self.loop_start_s) * self.speed

    def loop_s(self, simulated_s: float) -> float:
        """Return the event loop's time at a simulated time."""
        return self.loop_start_s + simulated_s / self.speed

    def wall(self, simulated_s: float) -> datetime:
        """Return the wall-clock time (UTC) of a simulated time."""
        return datetime.fromtimestamp(self.wall_start_s + simulated_s / self.speed, UTC)


def format_time(moment: datetime) -> str:
    """Write a time as Kubernetes does in object metadata, to the second."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
