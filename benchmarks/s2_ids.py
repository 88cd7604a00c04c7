"""S2 ids of points: geosieve's arrays against a Python loop over s2geometry, one core, same run.

Run from the repository's root: PYTHONPATH=lib python -m benchmarks.s2_ids
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial
from time import perf_counter

import numpy as np
from s2geometry import S2CellId, S2LatLng

from geosieve.geo.s2 import cell_ids

POINTS, PEER_POINTS, REPEATS = 4_000_000, 20_000, 3
BAR_PER_S = 2_000_000


def best_rate(points: int, work: Callable[[], object]) -> float:
    """Points per second in the fastest of the repeats."""
    seconds = []
    for _ in range(REPEATS):
        start = perf_counter()
        work()
        seconds.append(perf_counter() - start)
    return points / min(seconds)


def peer_ids(lat: list[float], lon: list[float], level: int) -> list[int]:
    """Ids of the S2 cells at `level` by s2geometry, point by point. `lat`, `lon` in degrees."""
    points = zip(lat, lon, strict=True)
    return [S2CellId(S2LatLng.FromDegrees(*point)).parent(level).id() for point in points]


def main() -> int:
    """Print the rates. Return exit code 1 if the bar is missed or an id differs from the peer's."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    rng = np.random.default_rng(20)
    lat = np.degrees(np.arcsin(rng.uniform(-1, 1, POINTS)))
    lon = rng.uniform(-180, 180, POINTS)
    few_lat, few_lon = lat[:PEER_POINTS].tolist(), lon[:PEER_POINTS].tolist()
    done = True
    for level in (30, 10):
        ours = best_rate(POINTS, partial(cell_ids, lat, lon, level))
        peer = best_rate(PEER_POINTS, partial(peer_ids, few_lat, few_lon, level))
        same = cell_ids(few_lat, few_lon, level).view(np.uint64).tolist() == peer_ids(few_lat, few_lon, level)
        met = ours >= BAR_PER_S
        done &= met and same
        print(
            f"level {level}: geosieve {ours:,.0f} ids/s, s2geometry {peer:,.0f} ids/s, "
            f"ratio {ours / peer:,.0f}, ids {'equal' if same else 'DIFFER'}, "
            f"bar {BAR_PER_S:,}/s {'met' if met else 'MISSED'}"
        )
    return 0 if done else 1


if __name__ == "__main__":
    sys.exit(main())
