"""How the benchmarks measure and report: one core, medians of interleaved repeats, a bar met or not.

Work of one process on one core is timed by its processor time, which is its wall time on an idle machine (the files are
in the page cache) and which other processes of a shared machine disturb far less.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from statistics import median
from time import process_time
from typing import TypeVar

from threadpoolctl import threadpool_limits

T = TypeVar("T")
REPEATS = 3


def one_core() -> None:
    """Keep this process and its children on one core, GDAL's and numpy's threads included."""
    os.environ.pop("GDAL_NUM_THREADS", None)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    # Two threads of a matrix product on one core wait for each other, and their waiting is processor time.
    threadpool_limits(1)


def interleaved(
    works: dict[str, Callable[[], T]], clock: Callable[[], float] = process_time
) -> tuple[dict[str, float], dict[str, T]]:
    """Median seconds of each work, and its last result. Run in turn (A B A B …), so that noise hits all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    results: dict[str, T] = {}
    for _ in range(REPEATS):
        for name, work in works.items():
            start = clock()
            results[name] = work()
            seconds[name].append(clock() - start)
    return {name: median(values) for name, values in seconds.items()}, results


def bar(what: str, value: float, limit: float, unit: str = "x", at_least: bool = False) -> bool:
    """Print a figure beside its bar, and return whether it meets it."""
    met = value >= limit if at_least else value <= limit
    sign = ">=" if at_least else "<="
    print(f"  {what}: {value:,.2f} {unit}, bar {sign} {limit:g} {unit}: {'met' if met else 'NOT met'}", flush=True)
    return met
