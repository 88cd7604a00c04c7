"""Index ranges against a plain loop."""

from __future__ import annotations

import numpy as np
import pytest

from geosieve.geo.ranges import ranges


@pytest.mark.parametrize("counts", [[], [0], [3], [2, 0, 0, 4, 1], [0, 5, 0]])
def test_ranges_are_those_of_a_loop(counts: list[int]) -> None:
    first = np.random.default_rng(0).integers(0, 100, len(counts))
    given = np.array(counts, dtype=np.int64)
    assert ranges(first, given).tolist() == [f + i for f, n in zip(first, counts, strict=True) for i in range(n)]
    assert ranges(0, given).tolist() == [i for n in counts for i in range(n)]
