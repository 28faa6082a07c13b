"""How long to wait before a failed piece of work is tried again; the only place that says so."""

from dataclasses import dataclass
from random import Random

MAX_DOUBLINGS = 32
"""Beyond this the limit holds anyhow; a power of two of any number of failures would not fit into a float."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses that double with every failure, up to a limit.

    Attributes:
        first_s: the pause after the first failure.
        limit_s: no pause is longer.
    """

    first_s: float
    limit_s: float

    def pause_s(self, failures: int, rng: Random) -> float:
        """Return the pause after so many failures in a row, at least half of it by chance.

        The jitter keeps those that failed together from coming back together.
        """
        doublings = min(max(failures - 1, 0), MAX_DOUBLINGS)
        return min(self.limit_s, self.first_s * 2.0**doublings) * (0.5 + rng.random() / 2)
