"""The clocks that decisions go by, held while one input is processed."""

from collections.abc import Callable


class HeldClock:
    """A monotonic clock and the wall clock, both read once per input.

    So everything that follows from an input happens at one moment, in the recorded run and in a replay.

    Args:
        monotonic: returns monotonic seconds.
        unix: returns Unix time in seconds.
    """

    def __init__(self, monotonic: Callable[[], float], unix: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._unix = unix
        self.is_held = False
        self._now_s = 0.0
        self._unix_s = 0.0

    def hold(self) -> None:
        """Read both clocks, and keep these times until `release`."""
        self._now_s, self._unix_s = self._monotonic(), self._unix()
        self.is_held = True

    def release(self) -> None:
        """Let the clocks run again."""
        self.is_held = False

    def now_s(self) -> float:
        """Return monotonic seconds."""
        return self._now_s if self.is_held else self._monotonic()

    def unix_s(self) -> float:
        """Return Unix time in seconds."""
        return self._unix_s if self.is_held else self._unix()
