"""A learned law: what a task costs on each node, as a linear function of its features, partially pooled.

Notation, for one model and one quantity y (seconds or joules)
    x       feature vector of a task, d entries
    m0      prior median of the coefficients, from published figures (priors.py); they may be off by a factor e
    g       a group of nodes with the same GPU type,  n  one node of it
    y       = (theta_g'x) exp(r_n) exp(e):  a law of the type, a ratio of the node, and what is left

Estimates
    theta_g  Bayesian linear regression on y / exp(r_n), weight 1 / (noise theta_g'x)^2 since errors are relative to the
             size of a task; the prior is log-normal, since coefficients are physical rates (type_law.py)
    r_n      a random walk seen through the residuals: a scalar Kalman filter with prior N(0, 0.05^2), so a second node
             of a type is good from its first task on, and one that throttles is noticed within some ten tasks
    e        errors of decisions: predictions made before other tasks came and went are off by more than the law. Their
             scale is averaged per type, over tasks ended at their deadline too, and the bounds of the 90 % interval
             are steered by what they miss (adaptive conformal inference, Gibbs and Candes 2021): where they hold less
             often than promised they widen, for any cause

Old observations fade, so laws follow a drift. An update costs O(d^3 + nodes of the type), a prediction O(d) a node.
"""

from collections.abc import Mapping, Sequence
from math import exp, inf, log

import numpy as np

from perllm.learning.censoring import Explanation, explain
from perllm.learning.decision_errors import MAX_ERROR, DecisionErrors
from perllm.learning.type_law import RELATIVE_NOISE, TypeLaw, is_better_known, read_numbers
from perllm.policy.arrays import extend
from perllm.policy.problem import BoolArray, FloatArray, IntArray

NODE_DEVIATION = 0.05
"""How far nodes of one type differ, as a standard deviation of ln(ratio)."""

NODE_WALK = 0.02
"""How far a node's ratio walks from one of its observations to the next; follows throttling within some ten."""

NODE_RETURN = 0.03
"""How fast a ratio returns to 1, so that what all nodes of a type share ends up in the law of the type."""

LEAST_INFORMATION = 1e-3
"""Ended runs that say less than this of a law, in complete runs, are left out of it."""

LEAST_SHARE = 0.01
"""No coefficient falls below this share of its prior where a law is given no others: physical rates are positive."""

MAX_LOG_RATIO = 3.0
"""No node is more than twenty times as slow as its type, or as fast."""


class PooledLaw:
    """Coefficients of one quantity for every node that serves a model.

    Args:
        prior: m0, shape (d,), positive; of every group that is not given one of its own.
        least: no coefficient falls below this share of its prior, shape (d,); `LEAST_SHARE` of all without it.

    Attributes:
        coefficients: theta of the type times the node's ratio, shape (rows, d). Those of all rows are contiguous,
            since decisions read them one after the other.
    """

    def __init__(self, prior: Sequence[float], least: Sequence[float] | None = None) -> None:
        self._prior: FloatArray = np.asarray(prior, dtype=np.float64)
        self._least = np.full(len(prior), LEAST_SHARE) if least is None else np.asarray(least, dtype=np.float64)
        self._laws: dict[int, TypeLaw] = {}
        self._learned_s: dict[int, float] = {}
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
        if group not in self._laws:
            prior = self._priors.get(group, self._prior)
            self._laws[group] = TypeLaw(prior, self._least * prior)
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
        self._laws[number].learn_roughly(features, value / exp(self._log_ratio[row]), deviation)
        self._refresh_all(number)

    def learn(self, row: int, features: FloatArray, value: float, error: float | None = None) -> None:
        """Account for an observation: a task with `features`, shape (d,), cost `value` on the node of `row`.

        Args:
            row: the node.
            features: as observed afterwards.
            value: what it cost, positive.
            error: ln of (actual / predicted at the decision); this, not the error of the fit, is what
                intervals have to hold. None when no decision is known.
        """
        number = int(self.group_of_row[row])
        group = self._laws[number]
        fitted = max(float(self.coefficients[row] @ features), 1e-9)
        misfit = log(max(value, 1e-9) / fitted)
        if error is not None:
            group.errors.account(error, group.weight)
        self._walk(row, min(max(misfit, -MAX_ERROR), MAX_ERROR), group.spread)
        group.learn(features, value, exp(self._log_ratio[row]))
        self._refresh_all(number)

    def explain(self, row: int, features: FloatArray, shares: FloatArray, ended_s: float) -> Explanation:
        """Explain a run that was ended after `ended_s` seconds on the node of `row`.

        Args:
            row: the node.
            features: of the run at each possible length of its answer, shape (k, d).
            shares: of these lengths, shape (k,).
            ended_s: when it was ended.
        """
        group = self._laws[int(self.group_of_row[row])]
        expected_s = np.maximum(features @ self.coefficients[row], 1e-9)
        return explain(shares, expected_s, np.hypot(RELATIVE_NOISE, group.doubt(features)), ended_s)

    def learn_ended(self, row: int, features: FloatArray, explained: Explanation) -> None:
        """Account for a run that was ended, with `features` as in `explain`."""
        number = int(self.group_of_row[row])
        group, weights = self._laws[number], explained.shares * explained.information
        information = float(weights.sum())
        if information < LEAST_INFORMATION:
            return
        misfit = float(explained.shares @ explained.excess) / information
        self._walk(row, min(max(misfit, -MAX_ERROR), MAX_ERROR), group.spread, information)
        group.learn_ended(features, explained)
        self._refresh_all(number)

    def account(self, row: int, error: float) -> None:
        """Account for the error of a decision, ln of (actual / predicted), but not for the law."""
        number = int(self.group_of_row[row])
        group = self._laws[number]
        group.errors.account(error, group.weight)
        self._refresh_errors(group.errors, self.group_of_row == number)

    def deviation(self, row: int) -> float:
        """Return the standard deviation of ln y around its prediction, also for a type with few outcomes."""
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
        return self._laws[int(self.group_of_row[row])].weight

    def export_moments(self, row: int) -> dict[str, list[float]]:
        """Return what is known of a node as plain numbers: its ratio, and its type's law as this node last saw it."""
        group = self._laws[int(self.group_of_row[row])]
        return {"ratio": [float(self._log_ratio[row]), float(self._variance[row])], **group.export_moments()}

    def import_moments(self, row: int, state: Mapping[str, Sequence[float]], learned_s: float = 0.0) -> bool:
        """Restore what `export_moments` returned; return whether its type's law is taken from it.

        Of several nodes of a type the best informed gives its law, and of those that are about as well informed the
        one with the latest outcome.

        Args:
            row: the node.
            state: of its law.
            learned_s: Unix time of the latest outcome in it.

        Raises:
            ValueError: the numbers cannot have been learned; then nothing is changed. Those of a law that is not taken
                are not examined.
        """
        number, restored = int(self.group_of_row[row]), self.find_restored(row, state, learned_s)
        self._log_ratio[row], self._variance[row] = read_numbers(state, "ratio", 2)
        if restored is None:
            self._refresh(number, np.array([row]))
            return False
        self._laws[number], self._learned_s[number] = restored, learned_s
        self._refresh_all(number)
        return True

    def find_restored(self, row: int, state: Mapping[str, Sequence[float]], learned_s: float = 0.0) -> TypeLaw | None:
        """Return the law of its type that `import_moments` takes from a state, None if it takes none; change nothing.

        Raises:
            ValueError: the numbers cannot have been learned.
        """
        number = int(self.group_of_row[row])
        ratio, variance = read_numbers(state, "ratio", 2)
        if abs(ratio) > MAX_LOG_RATIO or not 0.0 < variance <= 1.0:
            raise ValueError("ratio is not one that nodes of one type have")
        weight, known = float(read_numbers(state, "errors", 5)[0]), self._laws[number]
        than_s = self._learned_s.get(number, -inf)
        # To restore a law takes a millisecond, and of a large fleet few are taken.
        is_better = is_better_known(weight, learned_s, than_weight=known.weight, than_s=than_s)
        return known.restored(state) if is_better else None

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
        group = self._laws[number]
        self._thetas[number], self._covariances[number] = group.theta, group.covariance

    def _refresh(self, number: int, rows: IntArray) -> None:
        group = self._laws[number]
        self.coefficients[rows] = group.theta * np.exp(self._log_ratio[rows])[:, None]
        self._refresh_errors(group.errors, rows)

    def _refresh_errors(self, errors: DecisionErrors, rows: IntArray | BoolArray) -> None:
        self.scale[rows] = errors.scale
        self.low[rows], self.high[rows] = errors.low, errors.high

    def cover(self, rows: int) -> None:
        """Make room for `rows` rows; cheaper at once than with one row after the other."""
        missing = rows - len(self.group_of_row)
        if missing <= 0:
            return
        added = np.tile(self._prior[:, None], missing)
        self.coefficients = np.concatenate([self.coefficients.T, added], axis=1).T
        self.group_of_row = extend(self.group_of_row, rows, fill=-1)
        self._log_ratio, self._variance = extend(self._log_ratio, rows), extend(self._variance, rows)
        self.scale, self.low, self.high = extend(self.scale, rows), extend(self.low, rows), extend(self.high, rows)
