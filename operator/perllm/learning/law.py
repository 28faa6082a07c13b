"""A learned law: what a task costs on each node, as a linear function of its features, partially pooled.

Notation, for one model and one quantity y (seconds or joules)
    x       feature vector of a task, d entries
    m0      prior mean of the coefficients, from published figures (priors.py); prior deviation = m0 itself
    g       a group of nodes with the same GPU type,  n  one node of it
    y       = (theta_g'x) exp(r_n) exp(e):  a law of the type, a ratio of the node, and what is left

Estimates
    theta_g  Bayesian linear regression on y / exp(r_n), weight 1 / (noise theta_g'x)^2 since errors are relative to the
             size of a task; coefficients are physical rates, so none falls to zero
    r_n      a random walk seen through the residuals: a scalar Kalman filter with prior N(0, 0.05^2), so a second node
             of a type is good from its first task on, and one that throttles is believed within some ten tasks
    e        errors of decisions: what was foreseen, before others came and went, is off by more than the law is. Their
             scale is averaged per type, over tasks ended at their deadline too, and the bounds of the 90 % interval
             are steered by what they miss (adaptive conformal inference, Gibbs and Candes 2021): where they hold less
             often than promised they widen, whatever the cause

Old observations fade, so laws follow a drift. An update costs O(d^3 + nodes of the type), a prediction O(d) a node.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from perllm.learning.censoring import Explanation, explain
from perllm.policy.arrays import extend
from perllm.policy.problem import BoolArray, FloatArray, IntArray

RELATIVE_NOISE = 0.15
"""Spread of tasks of equal features around their law, for the weight of observations."""

MEMORY = 0.997
"""Weight of an observation of a type after the next one of that type."""

NODE_DEVIATION = 0.05
"""How far nodes of one type differ, as a standard deviation of ln(ratio)."""

NODE_WALK = 0.02
"""How far a node's ratio walks from one of its observations to the next; follows throttling within some ten."""

NODE_RETURN = 0.03
"""How fast a ratio returns to 1, so that what all nodes of a type share ends up in the law of the type."""

MIN_SPREAD = 0.05

MAX_ERROR = 1.0
"""Beyond this |e| an observation is odd and counts as this much: an outage, not a law."""

TAIL = 0.05
"""What each bound of the interval leaves out."""

MAX_ODDITY = 3.0
"""Observations further from the law than this many deviations, what is not known of it included, count as if they were
this far."""

MAX_DOUBT = 2.0
"""No law is taken for more uncertain, as a deviation of ln y."""

MAX_LIGHTNESS = float(np.exp(1.5 * MAX_ODDITY))
"""No observation counts as less than this share of what its law predicts, as far as the law itself may be off."""

LEAST_INFORMATION = 1e-3
"""Ended runs that say less than this of a law, in complete runs, are left out of it."""

LEAST_SHARE = 0.01
"""No coefficient falls below this share of its prior where a law is given no others: physical rates are positive."""

MAX_LOG_RATIO = 3.0
"""No node is more than twenty times as slow as its type, or as fast."""

MAX_COEFFICIENT = 1e12
"""A law that has learned from possible tasks has none larger."""

MAX_BOUND = 50.0
"""No bound of an interval is further away, as |e|: no forecast is off by more."""

SINGULAR = 1e-10
"""How far below zero an eigenvalue of a matrix of squares comes by rounding, as a share of its largest."""

STEER = 0.03
"""How far a bound moves when it is missed, in scales. Outcomes come late, so larger steps overshoot."""

PRIOR_SCALE = 0.3
PRIOR_WEIGHT = 4.0
ERROR_MEMORY = 0.99


class PooledLaw:
    """Coefficients of one quantity for every node that serves a model.

    Args:
        prior: m0, shape (d,), positive; of every group that is not given one of its own.
        least: no coefficient falls below this share of its prior, shape (d,); `LEAST_SHARE` of all without it.

    Attributes:
        coefficients: theta of the type times the node's ratio, shape (rows, d).
    """

    def __init__(self, prior: Sequence[float], least: Sequence[float] | None = None) -> None:
        self._prior: FloatArray = np.asarray(prior, dtype=np.float64)
        self._least = np.full(len(prior), LEAST_SHARE) if least is None else np.asarray(least, dtype=np.float64)
        self._groups: dict[int, _Group] = {}
        self._thetas: FloatArray = np.zeros((0, len(prior)))
        self._covariances: FloatArray = np.zeros((0, len(prior), len(prior)))
        self._most_doubt: FloatArray = np.zeros(0)
        self._priors: dict[int, FloatArray] = {}
        self.group_of_row = np.zeros(0, dtype=np.int64)
        self._log_ratio = np.zeros(0)
        self._variance = np.zeros(0)
        self.coefficients = np.zeros((0, len(self._prior)))
        self.scale = np.zeros(0)
        self.low = np.zeros(0)
        self.high = np.zeros(0)

    def set_prior(self, group: int, prior: Sequence[float], doubt: float = 1.0) -> None:
        """Give a group a prior of its own, before any node is assigned to it, and say how far to doubt it at most."""
        self._cover_groups(group + 1)
        self._priors[group] = np.asarray(prior, dtype=np.float64)
        self._most_doubt[group] = doubt

    def assign(self, row: int, group: int) -> None:
        """Set the GPU type of the node of `row`; needed before anything else about that row."""
        self.cover(row + 1)
        if group not in self._groups:
            prior = self._priors.get(group, self._prior)
            self._groups[group] = _Group(prior, self._least * prior)
            self._cover_groups(group + 1)
            self._publish(group)
        if self.group_of_row[row] == group:
            return
        self.group_of_row[row] = group
        self._log_ratio[row], self._variance[row] = 0.0, NODE_DEVIATION**2
        self._refresh(group, np.array([row]))

    def learn_roughly(self, row: int, features: FloatArray, value: float, deviation: float) -> None:
        """Account for an observation of which a part is only estimated, with this standard deviation."""
        number = int(self.group_of_row[row])
        self._groups[number].learn_roughly(features, value / float(np.exp(self._log_ratio[row])), deviation)
        self._refresh_all(number)

    def learn(self, row: int, features: FloatArray, value: float, error: float | None = None) -> None:
        """Account for an observation: a task with `features`, shape (d,), cost `value` on the node of `row`.

        Args:
            row: the node.
            features: as observed afterwards.
            value: what it cost, positive.
            error: ln of (what came / what was foreseen at the decision); this, not the error of the fit, is what
                intervals have to hold. None when no decision is known.
        """
        group_number = int(self.group_of_row[row])
        group = self._groups[group_number]
        fitted = max(float(self.coefficients[row] @ features), 1e-9)
        misfit = float(np.log(max(value, 1e-9) / fitted))
        if error is not None:
            self.account(row, error)
        self._walk(row, min(max(misfit, -MAX_ERROR), MAX_ERROR), group.spread)
        group.learn(features, value, float(np.exp(self._log_ratio[row])))
        self._refresh_all(group_number)

    def explain(self, row: int, features: FloatArray, shares: FloatArray, ended_s: float) -> Explanation:
        """Explain a run that was ended after `ended_s` seconds on the node of `row`.

        Args:
            row: the node.
            features: of the run at each possible length of its answer, shape (k, d).
            shares: of these lengths, shape (k,).
            ended_s: when it was ended.
        """
        group = self._groups[int(self.group_of_row[row])]
        expected_s = np.maximum(features @ self.coefficients[row], 1e-9)
        return explain(shares, expected_s, np.hypot(RELATIVE_NOISE, group.doubt(features)), ended_s)

    def learn_ended(self, row: int, features: FloatArray, explained: Explanation) -> None:
        """Account for a run that was ended, with `features` as in `explain`."""
        number = int(self.group_of_row[row])
        group, weights = self._groups[number], explained.shares * explained.information
        information = float(weights.sum())
        if information < LEAST_INFORMATION:
            return
        misfit = float(explained.shares @ explained.excess) / information
        self._walk(row, min(max(misfit, -MAX_ERROR), MAX_ERROR), group.spread, information)
        group.learn_ended(features, explained)
        self._refresh_all(number)

    def account(self, row: int, error: float) -> None:
        """Account for how far off a decision was, ln of (what came / what was foreseen), and not for the law."""
        number = int(self.group_of_row[row])
        group = self._groups[number]
        group.account(error)
        self._refresh_errors(group, self.group_of_row == number)

    def deviation(self, row: int) -> float:
        """Return the standard deviation of ln y around its prediction, that of a type hardly known included."""
        return float(self.scale[row])

    def doubt(self, features: FloatArray) -> FloatArray:
        """Return what is not known of the laws of types: the standard deviation of ln(theta'x) as learned so far.

        Unlike `deviation` it vanishes with the number of outcomes.

        Args:
            features: of a task on each of the first g types, shape (g, d).
        """
        types = len(features)
        variance = np.einsum("gi,gij,gj->g", features, self._covariances[:types], features)
        expected = np.einsum("gi,gi->g", features, self._thetas[:types])
        doubt: FloatArray = np.sqrt(np.maximum(variance, 0.0)) / np.maximum(expected, 1e-9)
        return np.minimum(doubt, self._most_doubt[:types])

    def weight(self, row: int) -> float:
        """Return how many outcomes the law of the node's type rests on, faded ones counted less."""
        return self._groups[int(self.group_of_row[row])].weight

    def export_moments(self, row: int) -> dict[str, list[float]]:
        """Return what is known of a node as plain numbers: its ratio, and its type's law as this node last saw it."""
        group = self._groups[int(self.group_of_row[row])]
        upper = np.triu_indices(len(self._prior))
        return {
            "ratio": [float(self._log_ratio[row]), float(self._variance[row])],
            "gram": group.gram[upper].tolist(),
            "moment": group.moment.tolist(),
            "errors": group.export_errors(),
        }

    def import_moments(self, row: int, state: Mapping[str, Sequence[float]]) -> bool:
        """Restore what `export_moments` returned; return whether its type's law is taken from it.

        Of several nodes of a type the best informed gives its law.

        Raises:
            ValueError: the numbers cannot have been learned; then nothing is changed.
        """
        group_number = int(self.group_of_row[row])
        group = self._groups[group_number]
        ratio, variance = _read(state, "ratio", 2)
        restored = group.restored(state)
        if abs(ratio) > MAX_LOG_RATIO or not 0.0 < variance <= 1.0:
            raise ValueError("ratio is not one that nodes of one type have")
        is_better = restored.weight >= group.weight
        if is_better:
            self._groups[group_number] = restored
        self._log_ratio[row], self._variance[row] = ratio, variance
        self._refresh_all(group_number)
        return is_better

    def _walk(self, row: int, misfit: float, spread: float, information: float = 1.0) -> None:
        """Move the node's ratio towards what was seen, as far as it is less certain than its type's law."""
        keep = 1.0 - NODE_RETURN * information
        variance = keep**2 * self._variance[row] + NODE_WALK**2 * information
        gain = variance / (variance + spread**2 / information)
        log_ratio = keep * self._log_ratio[row] + gain * misfit
        self._log_ratio[row] = min(max(log_ratio, -MAX_LOG_RATIO), MAX_LOG_RATIO)
        self._variance[row] = (1.0 - gain) * variance

    def _refresh_all(self, number: int) -> None:
        self._publish(number)
        self._refresh(number, np.flatnonzero(self.group_of_row == number))

    def _cover_groups(self, size: int) -> None:
        missing = size - len(self._thetas)
        if missing <= 0:
            return
        self._thetas = np.pad(self._thetas, ((0, missing), (0, 0)))
        self._covariances = np.pad(self._covariances, ((0, missing), (0, 0), (0, 0)))
        self._most_doubt = extend(self._most_doubt, size, fill=1.0)

    def _publish(self, number: int) -> None:
        group = self._groups[number]
        self._thetas[number], self._covariances[number] = group.theta, group.covariance

    def _refresh(self, number: int, rows: IntArray) -> None:
        group = self._groups[number]
        self.coefficients[rows] = group.theta * np.exp(self._log_ratio[rows])[:, None]
        self._refresh_errors(group, rows)

    def _refresh_errors(self, group: "_Group", rows: IntArray | BoolArray) -> None:
        self.scale[rows] = group.scale
        self.low[rows], self.high[rows] = group.low, group.high

    def cover(self, rows: int) -> None:
        """Make room for `rows` rows; cheaper at once than with one row after the other."""
        missing = rows - len(self.group_of_row)
        if missing <= 0:
            return
        self.coefficients = np.concatenate([self.coefficients, np.tile(self._prior, (missing, 1))])
        self.group_of_row = extend(self.group_of_row, rows, fill=-1)
        self._log_ratio, self._variance = extend(self._log_ratio, rows), extend(self._variance, rows)
        self.scale, self.low, self.high = extend(self.scale, rows), extend(self.low, rows), extend(self.high, rows)


class _Group:
    """The law of one GPU type and the errors around it."""

    def __init__(self, prior: FloatArray, least: FloatArray) -> None:
        self._prior, self._least = prior, least
        self.prior_precision = np.diag(prior**-2.0)
        self.prior_moment: FloatArray = self.prior_precision @ prior
        self.gram: FloatArray = np.zeros(self.prior_precision.shape)
        self.moment = np.zeros_like(prior)
        self.theta = prior.copy()
        self.covariance: FloatArray = np.diag(prior**2.0)
        self.weight = 0.0
        self._squares = PRIOR_WEIGHT * PRIOR_SCALE**2
        self._square_weight = PRIOR_WEIGHT
        self.scale = PRIOR_SCALE
        self._misfits = PRIOR_WEIGHT
        self._misfit_weight = PRIOR_WEIGHT
        self.spread = 1.0
        self.low, self.high = -1.645 * PRIOR_SCALE, 1.645 * PRIOR_SCALE

    def learn(self, features: FloatArray, value: float, ratio: float) -> None:
        fitted = max(float(self.theta @ features), 1e-9)
        misfit = float(np.log(max(value / ratio, 1e-9) / fitted))
        most = min(MAX_ODDITY * float(np.hypot(self.spread, self.doubt(features[None])[0])), np.log(MAX_LIGHTNESS))
        clipped = min(max(misfit, -MAX_ERROR), MAX_ERROR)
        self._misfits = self._misfits * ERROR_MEMORY + clipped**2
        self._misfit_weight = self._misfit_weight * ERROR_MEMORY + 1.0
        self.spread = max(float(np.sqrt(self._misfits / self._misfit_weight)), MIN_SPREAD)
        values = fitted * np.exp(np.array([min(max(misfit, -most), most)]))
        self._add(features[None], values, np.ones(1))

    def learn_roughly(self, features: FloatArray, value: float, deviation: float) -> None:
        fitted = max(float(self.theta @ features), 1e-9)
        value = max(value, fitted / np.exp(MAX_ERROR))
        variance = fitted * value * RELATIVE_NOISE**2
        self._add(features[None], np.array([value]), np.array([variance / (variance + deviation**2)]))

    def learn_ended(self, features: FloatArray, explained: Explanation) -> None:
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
        self.solve()

    def solve(self) -> None:
        """Find the coefficients: those that would fall below their least are set to it, and the others to fit."""
        precision, moment = self.prior_precision + self.gram, self.prior_moment + self.moment
        self.covariance = np.asarray(np.linalg.inv(precision), dtype=np.float64)
        theta: FloatArray = self.covariance @ moment
        free = np.ones(len(moment), dtype=np.bool_)
        while (theta[free] < self._least[free]).any():
            free &= theta >= self._least
            theta = self._least.copy()
            rest = moment[free] - precision[np.ix_(free, ~free)] @ theta[~free]
            theta[free] = np.linalg.solve(precision[np.ix_(free, free)], rest)
        self.theta = theta

    def account(self, error: float) -> None:
        step = STEER * self.scale * max(1.0, 10.0 / (1.0 + self.weight))
        self.low += step * (TAIL - float(error < self.low)) / (1 - TAIL)
        self.high += step * (float(error > self.high) - TAIL) / (1 - TAIL)
        clipped = min(max(error, -MAX_ERROR), MAX_ERROR)
        self._square_weight = self._square_weight * ERROR_MEMORY + 1.0
        self._squares = self._squares * ERROR_MEMORY + clipped**2
        self.scale = max(float(np.sqrt(self._squares / self._square_weight)), 0.01)

    def export_errors(self) -> list[float]:
        return [self.weight, self._squares, self._square_weight, self.low, self.high]

    def restored(self, state: Mapping[str, Sequence[float]]) -> "_Group":
        """Return a group with the numbers of a state.

        Raises:
            ValueError: they cannot have been learned.
        """
        group, size = _Group(self._prior, self._least), len(self._prior)
        upper = np.triu_indices(size)
        gram = _read(state, "gram", len(upper[0]))
        group.gram[upper] = gram
        group.gram.T[upper] = gram
        group.moment[:] = _read(state, "moment", size)
        group._import_errors(_read(state, "errors", 5))
        # An observation weighs 1 / (noise^2 predicted observed), of which the former is never below its least.
        most = MAX_LIGHTNESS * (group.weight + 0.001) / (RELATIVE_NOISE * self._least) ** 2
        if not is_gram(group.gram) or (np.diag(group.gram) > most).any():
            raise ValueError("gram is not a sum of squares of as many outcomes")
        group.solve()
        if not (group.theta <= MAX_COEFFICIENT).all():
            raise ValueError("moment is not that of possible tasks")
        return group

    def _import_errors(self, errors: FloatArray) -> None:
        self.weight, self._squares, self._square_weight, self.low, self.high = errors.tolist()
        most, most_squares = 1.0 / (1.0 - MEMORY), 1.0 / (1.0 - ERROR_MEMORY)
        is_weight = 0.0 <= self.weight <= 1.001 * most and 1.0 <= self._square_weight <= 1.001 * most_squares
        is_error = 0.0 <= self._squares <= MAX_ERROR**2 * self._square_weight
        if not (is_weight and is_error and max(abs(self.low), abs(self.high)) <= MAX_BOUND):
            raise ValueError("errors are impossible")
        self.scale = max(float(np.sqrt(self._squares / self._square_weight)), 0.01)


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


def _read(state: Mapping[str, Sequence[float]], name: str, size: int) -> FloatArray:
    numbers = np.asarray(state[name], dtype=np.float64)
    if numbers.shape != (size,) or not np.isfinite(numbers).all():
        raise ValueError(f"{name} must hold {size} finite numbers")
    return numbers
