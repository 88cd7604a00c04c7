"""How the benchmarks measure and report: one core, medians of interleaved repeats, bars that are met or not.

Work in one process on one core is measured in processor time. On an idle machine it equals wall time, because the files
are in the page cache. On a shared machine other processes disturb it far less.
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
    """Restrict this process and its children to one core, including the threads of GDAL and numpy."""
    os.environ.pop("GDAL_NUM_THREADS", None)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    # Two threads of a matrix product on one core would wait for each other, and waiting uses processor time.
    threadpool_limits(1)


def interleaved(
    works: dict[str, Callable[[], T]], clock: Callable[[], float] = process_time
) -> tuple[dict[str, float], dict[str, T]]:
    """Run each work REPEATS times. Return the median seconds and the last result of each, by name.

    The works alternate (A B A B …), so that noise affects all of them equally.
    """
    seconds: dict[str, list[float]] = {name: [] for name in works}
    results: dict[str, T] = {}
    for _ in range(REPEATS):
        for name, work in works.items():
            start = clock()
            results[name] = work()
            seconds[name].append(clock() - start)
    return {name: median(values) for name, values in seconds.items()}, results


def bar(what: str, value: float, limit: float, unit: str = "x", at_least: bool = False) -> bool:
    """Print a value and its bar, and return whether the value meets the bar.

    The bar is an upper limit, or a lower one with `at_least`. The limit itself meets it.
    """
    met = value >= limit if at_least else value <= limit
    sign = ">=" if at_least else "<="
    print(f"  {what}: {value:,.2f} {unit}, bar {sign} {limit:g} {unit}: {'met' if met else 'NOT met'}", flush=True)
    return met
