"""Laws fitted to what was measured."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True, slots=True)
class Fit:
    """A law that is linear in its coefficients.

    Attributes:
        coefficients: One for each term.
        errors: Predicted over measured, minus one, for each point.
    """

    coefficients: list[float]
    errors: list[float]


def fit_relative(terms: Sequence[ArrayLike], measured: ArrayLike) -> Fit:
    """Fit `sum of coefficient x term` by least squares of the relative error.

    Args:
        terms: Each of shape (points,), or one number for all points.
        measured: Positive, shape (points,).
    """
    values = np.asarray(measured, dtype=np.float64)
    columns = np.stack([np.broadcast_to(np.asarray(term, dtype=np.float64), values.shape) for term in terms], axis=1)
    relative = columns / values[:, None]
    coefficients = np.linalg.lstsq(relative, np.ones_like(values), rcond=None)[0]
    return Fit(coefficients.tolist(), (relative @ coefficients - 1.0).tolist())
