"""Errors of decisions on the nodes of one GPU type, as ln (actual / predicted): scale, and 90 % interval.

The bounds are steered by what they miss (adaptive conformal inference, Gibbs and Candes 2021).
"""

import numpy as np

MAX_ERROR = 1.0
"""A larger |e| is an outlier, such as an outage, and counts as this much."""

TAIL = 0.05
"""What each bound of the interval leaves out."""

MAX_BOUND = 50.0
"""No bound of an interval is further away, as |e|: no forecast is off by more."""

STEER = 0.03
"""How far a bound moves when it is missed, in scales. Outcomes come late, so larger steps overshoot."""

PRIOR_SCALE = 0.3
PRIOR_WEIGHT = 4.0
ERROR_MEMORY = 0.99


class DecisionErrors:
    """What is known of the errors of decisions.

    Attributes:
        scale: their root mean square, faded.
        low, high: bounds of the interval.
    """

    def __init__(self) -> None:
        self._squares = PRIOR_WEIGHT * PRIOR_SCALE**2
        self._square_weight = PRIOR_WEIGHT
        self.scale = PRIOR_SCALE
        self.low, self.high = -1.645 * PRIOR_SCALE, 1.645 * PRIOR_SCALE

    def account(self, error: float, weight: float) -> None:
        """Account for an error where the law rests on `weight` outcomes: with few of them, bounds take larger steps."""
        step = STEER * self.scale * max(1.0, 10.0 / (1.0 + weight))
        self.low += step * (TAIL - float(error < self.low)) / (1 - TAIL)
        self.high += step * (float(error > self.high) - TAIL) / (1 - TAIL)
        clipped = min(max(error, -MAX_ERROR), MAX_ERROR)
        self._square_weight = self._square_weight * ERROR_MEMORY + 1.0
        self._squares = self._squares * ERROR_MEMORY + clipped**2
        self._refresh_scale()

    def export(self) -> list[float]:
        """Return everything as plain numbers."""
        return [self._squares, self._square_weight, self.low, self.high]

    def restore(self, squares: float, square_weight: float, low: float, high: float) -> None:
        """Restore what `export` returned.

        Raises:
            ValueError: the numbers cannot have been learned; then nothing is changed.
        """
        is_weight = 1.0 <= square_weight <= 1.001 / (1.0 - ERROR_MEMORY)
        is_error = 0.0 <= squares <= MAX_ERROR**2 * square_weight
        if not (is_weight and is_error and max(abs(low), abs(high)) <= MAX_BOUND):
            raise ValueError("errors are impossible")
        self._squares, self._square_weight, self.low, self.high = squares, square_weight, low, high
        self._refresh_scale()

    def _refresh_scale(self) -> None:
        self.scale = max(float(np.sqrt(self._squares / self._square_weight)), 0.01)
