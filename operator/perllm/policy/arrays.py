"""Arrays with one entry per row, which grow as nodes join."""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

S = TypeVar("S", np.float64, np.int64, np.int8, np.bool_)


def extend(values: NDArray[S], size: int, fill: float = 0.0) -> NDArray[S]:
    """Return the values with their last axis filled up to a size; the same array where it has that already."""
    missing = size - values.shape[-1]
    if missing <= 0:
        return values
    return np.concatenate([values, np.full((*values.shape[:-1], missing), fill, dtype=values.dtype)], axis=-1)
