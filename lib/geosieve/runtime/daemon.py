"""Spark's daemon of Python workers, which imports what most tasks use before it forks its first worker.

Spark starts one daemon per executor, and every worker is a fork of it. This saves each worker a second for its imports,
and each task 40 ms on one core: Spark collects garbage after every task, which looks at every object of every imported
module unless they are frozen.

Started by Spark as `python -m geosieve.runtime.daemon`, where `spark.python.daemon.module` says so.
"""

from __future__ import annotations

import gc
from importlib import import_module

from pyspark.daemon import manager

USED_BY_TASKS = (
    "pandas",
    "geosieve.images.content",
    "geosieve.images.photos",
    "geosieve.rasters.sampling",
    "geosieve.splits.near_duplicates",
)
"""By name, because they are modules of rooms that build on this one."""


def main() -> None:
    """Import the modules, and serve Spark until it closes standard input."""
    for name in USED_BY_TASKS:
        import_module(name)
    gc.collect()
    gc.freeze()
    manager()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
