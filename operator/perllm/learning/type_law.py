"""The law of one GPU type: Bayesian linear regression with relative errors and positive coefficients.

The notation is that of law.py: a posterior over theta_g, from the prior m0 and the sums of weighted observations.

    ln theta ~ N(ln m0, PRIOR_DEVIATION^2) before the first observation, independently for each coefficient

Figures of hardware are wrong by factors: a prior that allows for m0 + m0 would hold a coefficient that is fifty times
m0 against hundreds of observations, if each of them says little about it.
"""

from collections.abc import Mapping, Sequence
from math import exp, hypot, log, sqrt

import numpy as np

from perllm.learning.censoring import Explanation
from perllm.learning.decision_errors import ERROR_MEMORY, MAX_ERROR, PRIOR_WEIGHT, DecisionErrors
from perllm.policy.problem import BoolArray, FloatArray

RELATIVE_NOISE = 0.15
"""Spread of tasks of equal features around their law, for the weight of observations."""

PRIOR_DEVIATION = 1.0
"""How far published figures may be off, as a standard deviation of the logarithm."""

MAX_STEPS = 50
TOLERANCE = 0.02
"""A step of the logarithms that is smaller is the last one, except for a law that is restored: the next observation
continues from there."""

EXACT = 1e-9

MEMORY = 0.997
"""Weight of an observation of a type after the next one of that type."""

MIN_SPREAD = 0.05

MAX_ODDITY = 3.0
"""Observations further from the law than this many deviations, what is not known of it included, count as if they were
this far."""

MAX_DOUBT = 2.0
"""No law is taken for more uncertain, as a deviation of ln y."""

MAX_LIGHTNESS = exp(1.5 * MAX_ODDITY)
"""No observation counts as less than this share of what its law predicts, as far as the law itself may be off."""

NEARLY = 0.9
"""Of two stored states of a law the later one counts that rests on this share of the outcomes of the other."""

MAX_COEFFICIENT = 1e12
"""A law that has learned from possible tasks has none larger."""

SINGULAR = 1e-10
"""How far below zero an eigenvalue of a matrix of squares comes by rounding, as a share of its largest."""


class TypeLaw:
    """Coefficients of one quantity on the nodes of one GPU type.

    Args:
        prior: m0, shape (d,), positive.
        least: below which no coefficient falls, shape (d,).

    Attributes:
        gram, moment: sums over the observations, faded, shapes (d, d) and (d,).
        theta, covariance: of the coefficients, shapes (d,) and (d, d).
        weight: how many outcomes these rest on, faded ones counted less.
        spread: how far observations scatter around the law, as a deviation of ln y.
        errors: of the decisions on these nodes.
    """

    def __init__(self, prior: FloatArray, least: FloatArray) -> None:
        self._prior, self._least = prior, least
        self._prior_logs: FloatArray = np.log(prior)
        self._prior_precision: FloatArray = np.eye(len(prior)) / PRIOR_DEVIATION**2
        self._least_logs: FloatArray = np.log(least)
        self.gram: FloatArray = np.zeros((len(prior), len(prior)))
        self.moment = np.zeros_like(prior)
        self.theta = prior.copy()
        self.covariance: FloatArray = np.diag((PRIOR_DEVIATION * prior) ** 2.0)
        self.weight = 0.0
        self._misfits = PRIOR_WEIGHT
        self._misfit_weight = PRIOR_WEIGHT
        self.spread = 1.0
        self.errors = DecisionErrors()

    def learn(self, features: FloatArray, value: float, ratio: float) -> None:
        """Account for an observation: a task with `features`, shape (d,), cost `value` on a node of this ratio."""
        fitted = max(float(self.theta @ features), 1e-9)
        misfit = log(max(value / ratio, 1e-9) / fitted)
        most = min(MAX_ODDITY * hypot(self.spread, float(self.doubt(features[None])[0])), log(MAX_LIGHTNESS))
        clipped = min(max(misfit, -MAX_ERROR), MAX_ERROR)
        self._misfits = self._misfits * ERROR_MEMORY + clipped**2
        self._misfit_weight = self._misfit_weight * ERROR_MEMORY + 1.0
        self._refresh_spread()
        value = fitted * exp(min(max(misfit, -most), most))
        self._add(features[None], np.array([value]), np.ones(1))

    def learn_roughly(self, features: FloatArray, value: float, deviation: float) -> None:
        """Account for an observation of which a part is only estimated, with this standard deviation."""
        fitted = max(float(self.theta @ features), 1e-9)
        value = max(value, fitted / exp(MAX_ERROR))
        variance = fitted * value * RELATIVE_NOISE**2
        self._add(features[None], np.array([value]), np.array([variance / (variance + deviation**2)]))

    def learn_ended(self, features: FloatArray, explained: Explanation) -> None:
        """Account for a run that was ended, with features of shape (k, d) at each possible length of its answer."""
        weights = explained.shares * explained.information
        fitted = np.maximum(features @ self.theta, 1e-9)
        # Newton's working response of a censored observation.
        values = fitted * (1.0 + np.expm1(explained.excess) / np.maximum(explained.information, 1e-12))
        self._add(features, values, weights)

    def doubt(self, features: FloatArray) -> FloatArray:
        """Return how uncertain the law is of tasks with `features`, shape (k, d): a deviation of ln y, shape (k,)."""
        variances = np.einsum("ki,ij,kj->k", features, self.covariance, features)
        deviation: FloatArray = np.sqrt(np.maximum(variances, 0.0)) / np.maximum(features @ self.theta, 1e-9)
        return np.minimum(deviation, MAX_DOUBT)

    def _add(self, features: FloatArray, values: FloatArray, weights: FloatArray) -> None:
        """Add observations, shape (k, d) and (k,), that together weigh at most one."""
        fitted = np.maximum(features @ self.theta, 1e-9)
        weighted = features * (weights / (fitted * values * RELATIVE_NOISE**2))[:, None]
        total = float(weights.sum())
        keep = MEMORY**total
        self.gram = self.gram * keep + weighted.T @ features
        self.moment = self.moment * keep + weighted.T @ values
        self.weight = self.weight * keep + total
        self._solve()

    def _refresh_spread(self) -> None:
        self.spread = max(sqrt(self._misfits / self._misfit_weight), MIN_SPREAD)

    def _restore_fit(self, fit: Sequence[float]) -> None:
        """Restore how far observations scattered: their squares and weight, which earlier versions did not store."""
        squares, weight = read_numbers({"fit": fit}, "fit", 2).tolist()
        if not (1.0 <= weight <= 1.001 / (1.0 - ERROR_MEMORY) and 0.0 <= squares <= MAX_ERROR**2 * weight):
            raise ValueError("fit is impossible")
        self._misfits, self._misfit_weight = squares, weight
        self._refresh_spread()

    def _solve(self, tolerance: float = TOLERANCE) -> None:
        """Find the likeliest coefficients by Newton's method on their logarithms, from where they are."""
        logs: FloatArray = np.log(self.theta)
        for _ in range(MAX_STEPS):
            theta = np.exp(logs)
            pull = theta * (self.moment - self.gram @ theta)
            slope = pull - (logs - self._prior_logs) / PRIOR_DEVIATION**2
            information = self.gram * (theta[:, None] * theta) + self._prior_precision
            # The rest of the curvature counts only where it is positive: so each step goes uphill, and none overshoots.
            curvature = information + np.diag(np.maximum(-pull, 0.0))
            free = (logs > self._least_logs) | (slope > 0.0)
            step = np.linalg.solve(curvature, slope) if free.all() else _step_within(curvature, slope, free)
            logs = np.maximum(logs + step.clip(-1.0, 1.0), self._least_logs)
            if np.abs(step).max() < tolerance:
                break
        self.theta = np.exp(logs)
        inverse = np.linalg.inv(information)
        self.covariance = np.asarray(inverse * (self.theta[:, None] * self.theta), dtype=np.float64)

    def export_moments(self) -> dict[str, list[float]]:
        """Return what is known as plain numbers."""
        upper = np.triu_indices(len(self._prior))
        return {
            "gram": self.gram[upper].tolist(),
            "moment": self.moment.tolist(),
            "errors": [self.weight, *self.errors.export()],
            "fit": [self._misfits, self._misfit_weight],
        }

    def restored(self, state: Mapping[str, Sequence[float]]) -> "TypeLaw":
        """Return a law with the numbers that `export_moments` returned.

        Raises:
            ValueError: they cannot have been learned.
        """
        law, size = TypeLaw(self._prior, self._least), len(self._prior)
        upper = np.triu_indices(size)
        gram = read_numbers(state, "gram", len(upper[0]))
        law.gram[upper] = gram
        law.gram.T[upper] = gram
        law.moment[:] = read_numbers(state, "moment", size)
        weight, *errors = read_numbers(state, "errors", 5).tolist()
        if not 0.0 <= weight <= 1.001 / (1.0 - MEMORY):
            raise ValueError("errors are impossible")
        law.weight = weight
        law.errors.restore(*errors)
        law._restore_fit(state.get("fit") or (PRIOR_WEIGHT, PRIOR_WEIGHT))
        # An observation weighs 1 / (noise^2 predicted observed), of which the former is never below its least.
        most = MAX_LIGHTNESS * (law.weight + 0.001) / (RELATIVE_NOISE * self._least) ** 2
        if not is_gram(law.gram) or (np.diag(law.gram) > most).any():
            raise ValueError("gram is not a sum of squares of as many outcomes")
        law._solve(EXACT)
        if not (law.theta <= MAX_COEFFICIENT).all():
            raise ValueError("moment is not that of possible tasks")
        return law


def _step_within(curvature: FloatArray, slope: FloatArray, free: BoolArray) -> FloatArray:
    """Return a step that leaves the coefficients that are not free where they are; arrays of shape (d, d) and (d,)."""
    step = np.zeros_like(slope)
    step[free] = np.linalg.solve(curvature[np.ix_(free, free)], slope[free])
    return step


def is_better_known(weight: float, learned_s: float, *, than_weight: float, than_s: float) -> bool:
    """Whether of two stored states of one law the first is to be kept, given what they rest on and when they were made.

    The later one contains the other, though its outcomes have faded: weights of laws that have learned for long are
    nearly the same, and that of a node which has had no task for weeks may be the larger by a hair.
    """
    if learned_s == than_s:
        return weight >= than_weight
    return weight >= NEARLY * than_weight if learned_s > than_s else NEARLY * weight > than_weight


def is_gram(matrix: FloatArray) -> bool:
    """Whether a symmetric matrix, shape (d, d), can be a sum of outer products of vectors with themselves."""
    diagonal = np.diag(matrix)
    if (diagonal < 0.0).any():
        return False
    length = np.sqrt(diagonal)
    if (np.abs(matrix) > 1.001 * np.outer(length, length)).any():
        return False
    scale = np.where(length > 0.0, length, 1.0)
    return bool(np.linalg.eigvalsh(matrix / scale[:, None] / scale)[0] >= -SINGULAR)


def read_numbers(state: Mapping[str, Sequence[float]], name: str, size: int) -> FloatArray:
    """Return an array of a state, shape (size,).

    Raises:
        ValueError: it has another size, or holds something that is no finite number.
    """
    numbers = np.asarray(state[name], dtype=np.float64)
    if numbers.shape != (size,) or not np.isfinite(numbers).all():
        raise ValueError(f"{name} must hold {size} finite numbers")
    return numbers
