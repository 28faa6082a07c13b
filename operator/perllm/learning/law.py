"""A learned law: what a task costs on each node, as a linear function of its features, partially pooled.

Notation, for one model and one quantity y (seconds or joules)
    x       feature vector of a task, d entries
    m0      prior mean of the coefficients, from published figures (priors.py); prior deviation = m0 itself
    g       a group of nodes with the same GPU type
    w       weight of an observation, 1 / (noise m0'x)^2: errors are relative to the size of the task

Posterior of a Gaussian linear model at two levels, node <- GPU type <- published prior:
    group   A_g = S0 + sum over nodes of g of sum w x x',    mu_g = A_g^-1 (S0 m0 + sum w x y),      S0 = diag(m0)^-2
    node    A_n = k S0 + sum w x x',                         mu_n = A_n^-1 (k S0 mu_g + sum w x y)
k says how alike nodes of one type are. So the second node of a type is good from its first task on, and a node that
differs is believed after some tens. Coefficients are physical rates: negative ones are set to zero.

An update costs O(d^3) for each node of the type, a prediction O(d) for each node.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from perllm.policy.problem import FloatArray, IntArray

RELATIVE_NOISE = 0.25
"""Spread of tasks of equal features around their law; the unknown future arrivals on a shared node cause most of it."""

TYPE_LIKENESS = 4.0
"""k above: a node needs information worth four times the prior's to leave its type."""


class PooledLaw:
    """Coefficients of one quantity for every node that serves a model.

    Args:
        prior: m0, shape (d,), positive; of every group that is not given one of its own.
    """

    def __init__(self, prior: Sequence[float]) -> None:
        self._prior: FloatArray = np.asarray(prior, dtype=np.float64)
        self._priors: dict[int, FloatArray] = {}
        size = len(self._prior)
        self._groups = np.zeros(0, dtype=np.int64)
        self._gram = np.zeros((0, size, size))
        self._moment = np.zeros((0, size))
        self._coefficients = np.zeros((0, size))

    def set_prior(self, group: int, prior: Sequence[float]) -> None:
        """Give a group a prior of its own, before any node is assigned to it."""
        self._priors[group] = np.asarray(prior, dtype=np.float64)

    def assign(self, row: int, group: int) -> None:
        """Say which GPU type the node of `row` has; needed before anything else about that row."""
        missing = row + 1 - len(self._groups)
        if missing > 0:
            size = len(self._prior)
            self._groups = np.concatenate([self._groups, np.full(missing, -1, dtype=np.int64)])
            self._gram = np.concatenate([self._gram, np.zeros((missing, size, size))])
            self._moment = np.concatenate([self._moment, np.zeros((missing, size))])
            self._coefficients = np.concatenate([self._coefficients, np.tile(self._prior, (missing, 1))])
        left = int(self._groups[row])
        if left == group:
            return
        self._groups[row] = group
        if left < 0:
            # A new node changes nothing for the others; solving for all would make a fleet's start quadratic.
            self._refresh(group, np.array([row]))
            return
        self._solve(group)
        self._solve(left)

    def predict(self, rows: IntArray, features: FloatArray) -> FloatArray:
        """Return y for tasks with `features`, shape (n, d), on the nodes of `rows`, shape (n,)."""
        product: FloatArray = np.einsum("nd,nd->n", self._coefficients[rows], features)
        return product

    def learn(self, row: int, features: FloatArray, value: float) -> None:
        """Account for an observation: a task with `features`, shape (d,), cost `value` on the node of `row`."""
        scale = max(float(self._prior_of(int(self._groups[row])) @ features) * RELATIVE_NOISE, 1e-9)
        weighted = features / scale**2
        self._gram[row] += np.outer(weighted, features)
        self._moment[row] += weighted * value
        self._solve(int(self._groups[row]))

    def coefficients(self, row: int) -> FloatArray:
        """Return the coefficients of a node, shape (d,)."""
        own: FloatArray = self._coefficients[row]
        return own

    def deviation(self, row: int, features: FloatArray) -> float:
        """Return the posterior standard deviation of the law (without the noise) for a task with `features`."""
        matrix = TYPE_LIKENESS * _precision(self._prior_of(int(self._groups[row]))) + self._gram[row]
        return float(np.sqrt(features @ np.linalg.solve(matrix, features)))

    def export_moments(self, row: int) -> dict[str, list[float]]:
        """Return the statistics of a node as plain numbers: the upper triangle of the Gram matrix, and the moment."""
        upper = np.triu_indices(len(self._prior))
        return {"gram": self._gram[row][upper].tolist(), "moment": self._moment[row].tolist()}

    def import_moments(self, row: int, state: Mapping[str, Sequence[float]]) -> None:
        """Take back what `export_moments` returned.

        Raises:
            ValueError: the numbers are too many, too few or not finite.
        """
        size = len(self._prior)
        upper = np.triu_indices(size)
        gram, moment = np.asarray(state["gram"], dtype=np.float64), np.asarray(state["moment"], dtype=np.float64)
        if gram.shape != upper[0].shape or moment.shape != (size,) or not np.isfinite([*gram, *moment]).all():
            raise ValueError(f"not the moments of a law of {size} coefficients")
        self._gram[row][upper] = gram
        self._gram[row].T[upper] = gram
        self._moment[row] = moment
        self._solve(int(self._groups[row]))

    def _solve(self, group: int) -> None:
        """Refresh the coefficients of all nodes of one type."""
        self._refresh(group, np.flatnonzero(self._groups == group))

    def _refresh(self, group: int, rows: IntArray) -> None:
        """Refresh the coefficients of some nodes of one type."""
        prior, members = self._prior_of(group), np.flatnonzero(self._groups == group)
        precision = _precision(prior)
        moments = precision @ prior + self._moment[members].sum(axis=0)
        pooled = np.linalg.solve(precision + self._gram[members].sum(axis=0), moments)
        stiff = TYPE_LIKENESS * precision
        right = stiff @ np.maximum(pooled, 0.0) + self._moment[rows]
        solution = np.linalg.solve(stiff + self._gram[rows], right[..., None])[..., 0]
        self._coefficients[rows] = np.maximum(solution, 0.0)

    def _prior_of(self, group: int) -> FloatArray:
        return self._priors.get(group, self._prior)


def _precision(prior: FloatArray) -> FloatArray:
    return np.asarray(np.diag(prior**-2.0))
