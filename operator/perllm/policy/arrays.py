"""Arrays with one entry per row, which grow as nodes join."""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

S = TypeVar("S", np.float64, np.int64, np.int8, np.bool_)

Index = NDArray[np.int64] | slice
"""Rows by number, or as a range where they follow one another: what is read by a range is not copied, so it changes
with the array, and must not be written to."""


def as_index(rows: NDArray[np.int64]) -> Index:
    """Return rows as a range, if they follow one another."""
    size = len(rows)
    if not size or rows[-1] - rows[0] != size - 1:
        return rows
    first = int(rows[0])
    return slice(first, first + size) if (rows == np.arange(first, first + size)).all() else rows


def end_of(rows: Index) -> int:
    """Return how many rows an array needs to contain these."""
    return int(rows.stop) if isinstance(rows, slice) else int(rows.max(initial=-1)) + 1


def columns(values: NDArray[S], rows: Index) -> NDArray[S]:
    """Return the columns of some rows of the fleet, shape (k, n) of an array of shape (k, rows)."""
    return values[:, rows] if isinstance(rows, slice) else values.take(rows, axis=1)


def extend(values: NDArray[S], size: int, fill: float = 0.0) -> NDArray[S]:
    """Return the values with their last axis filled up to a size; the same array where it has that already."""
    missing = size - values.shape[-1]
    if missing <= 0:
        return values
    return np.concatenate([values, np.full((*values.shape[:-1], missing), fill, dtype=values.dtype)], axis=-1)
