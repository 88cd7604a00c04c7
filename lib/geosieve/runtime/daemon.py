"""Spark's daemon of Python workers, which imports what most tasks use before it forks its first worker.

Spark starts one daemon per executor, and every worker is a fork of it. This saves each worker a second for its imports,
and each task some 160 ms that PySpark loses between tasks:

- It collects garbage, for which Python looks at every object of every imported module, unless they are frozen.
- It forgets what is known of folders with modules, and Python reads the directories of pyspark.zip and py4j.zip anew.
- Spark sends a task in several small packets and waits for the answer to each, which the kernel holds back for 40 ms.

Started by Spark as `python -m geosieve.runtime.daemon`, where `spark.python.daemon.module` says so.
"""

from __future__ import annotations

import gc
import socket
from collections.abc import Callable
from importlib import import_module
from zipimport import zipimporter

import pyspark.daemon

_run_task: Callable[[socket.socket, bool], int] = pyspark.daemon.worker

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
    # Archives of modules do not change while an executor runs; new ones have new names.
    zipimporter.invalidate_caches = _keep  # type: ignore[assignment, method-assign]
    gc.collect()
    gc.freeze()
    pyspark.daemon.worker = _worker
    pyspark.daemon.manager()  # type: ignore[no-untyped-call]


def _worker(connection: socket.socket, authenticated: bool) -> int:
    """Run one task, as PySpark's function does that this one replaces."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
    return _run_task(connection, authenticated)


def _keep(archive: zipimporter) -> None:
    """Keep what is known of an archive of modules."""


if __name__ == "__main__":
    main()
