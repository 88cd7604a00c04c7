"""Index ranges of different lengths, one after the other in one array."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def ranges(first: Ints | int, counts: Ints) -> Ints:
    """The integers first, first + 1, … of each range, `counts` of them, shape (sum of counts,); counts are (n,)."""
    start = np.repeat(first - (np.cumsum(counts) - counts), counts)
    return np.asarray(start + np.arange(start.size))
