"""Pauses before retries; every retry in PerLLM gets its pause from here."""

from dataclasses import dataclass
from random import Random

MAX_DOUBLINGS = 32
"""Beyond this the limit applies anyway, and a power of two of any exponent would not fit into a float."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses that double with every failure, up to a limit.

    Attributes:
        first_s: pause after the first failure.
        limit_s: longest pause.
    """

    first_s: float
    limit_s: float

    def pause_s(self, failures: int, rng: Random) -> float:
        """Return the pause after this many failures in a row, of which up to one half is left out at random.

        The jitter keeps work that failed at the same time from being retried at the same time.
        """
        doublings = min(max(failures - 1, 0), MAX_DOUBLINGS)
        return min(self.limit_s, self.first_s * 2.0**doublings) * (0.5 + rng.random() / 2)
