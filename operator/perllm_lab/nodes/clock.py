"""Maps the event loop's time to simulated seconds and to the wall clock."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True, slots=True)
class Clock:
    """Simulated time runs `speed` times as fast as the wall clock and starts at 0 with the fleet.

    Attributes:
        monotonic: Returns the event loop's time in seconds.
        loop_start_s: That time when the fleet started.
        wall_start_s: Seconds since the epoch when the fleet started.
        speed: Simulated seconds per wall second.
    """

    monotonic: Callable[[], float]
    loop_start_s: float
    wall_start_s: float
    speed: float

    def now_s(self) -> float:
        """Simulated seconds now."""
        return (self.monotonic() - self.loop_start_s) * self.speed

    def loop_s(self, simulated_s: float) -> float:
        """Time of the event loop at a simulated moment."""
        return self.loop_start_s + simulated_s / self.speed

    def wall(self, simulated_s: float) -> datetime:
        """Wall-clock time (UTC) of a simulated moment."""
        return datetime.fromtimestamp(self.wall_start_s + simulated_s / self.speed, UTC)


def format_time(moment: datetime) -> str:
    """Writes a time as Kubernetes does in object metadata, to the second."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
