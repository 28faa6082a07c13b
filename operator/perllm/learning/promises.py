"""How chances to be in time have to be read so that they come true: of the tasks that are given p, a share of p is.

Notation
    x       log-odds of the chance by the laws;  y  1 if the task was in time, else 0
    q       1 / (1 + exp(-(a + b x))), the promise: logistic calibration (Platt 1999)

(a, b) start at (0, 1), where a promise is the chance itself, and follow the outcomes by a Newton step each, with a
memory of some hundreds. Only what people are told is calibrated, not what the policy decides by: that learns from the
same outcomes already, and would be corrected twice.
"""

from math import exp, log

import numpy as np

from perllm.policy.problem import FloatArray

MEMORY = 0.998
MAX_LOG_ODDS = 6.0
"""Nothing is promised for more certain than 0.9975."""

LEAST_SLOPE = 0.1
"""Promises rise with the chance: who has more is promised more."""

PRIOR_DEVIATION = 0.3
"""Of a and b around (0, 1) before the first outcome; later they are held there by a deviation of 1 only."""

_START: FloatArray = np.array([0.0, 1.0])
_PRIOR: FloatArray = np.eye(2) / PRIOR_DEVIATION**2
_LATER: FloatArray = np.eye(2)


class Promises:
    """Calibrates the chances of the tasks of one model."""

    def __init__(self) -> None:
        self._line = _START.copy()
        self._information = _PRIOR.copy()

    def read(self, chance: float) -> float:
        """Return the share of tasks of this chance that will be in time."""
        if not 0.0 < chance < 1.0:
            return chance
        return _share(float(self._line @ _features(chance)))

    def learn(self, chance: float, *, is_in_time: bool) -> None:
        """Account for what became of a task that had this chance by the laws."""
        x = _features(chance)
        share = _share(float(self._line @ x))
        forgotten = (1.0 - MEMORY) * _LATER
        self._information = MEMORY * self._information + forgotten + share * (1.0 - share) * np.outer(x, x)
        step = (float(is_in_time) - share) * x + forgotten @ (_START - self._line)
        self._line = self._line + np.linalg.solve(self._information, step)
        self._line[1] = max(self._line[1], LEAST_SLOPE)


def _features(chance: float) -> FloatArray:
    odds = max(chance, 1e-9) / max(1.0 - chance, 1e-9)
    return np.array([1.0, min(max(log(odds), -MAX_LOG_ODDS), MAX_LOG_ODDS)])


def _share(log_odds: float) -> float:
    return 1.0 / (1.0 + exp(-min(max(log_odds, -MAX_LOG_ODDS), MAX_LOG_ODDS)))
