"""Integer ranges of different lengths, concatenated into one array."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def ranges(first: Ints | int, counts: Ints) -> Ints:
    """Concatenate the ranges first, first + 1, …, first + count - 1.

    `counts`, shape (n,): length of each range, at least 0. `first`: start of each range, shape (n,), or of all ranges.
    Returns shape (sum of counts,).
    """
    start = np.repeat(first - (np.cumsum(counts) - counts), counts)
    return np.asarray(start + np.arange(start.size))
