"""A progress bar on the driver, fed by Spark's status tracker."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from py4j.protocol import Py4JError
from tqdm import tqdm

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@contextmanager
def progress_bar(spark: SparkSession, label: str, seconds: float = 0.5) -> Iterator[None]:
    """Show the finished tasks of the running stages on standard error while the block runs.

    The bar starts with `label` and is updated every `seconds`. It is shown only if standard error is a terminal.
    """
    if not sys.stderr.isatty():
        yield
        return
    done = threading.Event()
    tracker = spark.sparkContext.statusTracker()

    def watch() -> None:
        with tqdm(file=sys.stderr, desc=label, unit="task", leave=False) as bar:
            while not done.wait(seconds):
                try:
                    stages = [tracker.getStageInfo(stage) for stage in tracker.getActiveStageIds()]
                except (Py4JError, OSError):  # the JVM has ended; the job itself reports it
                    return
                bar.total = sum(stage.numTasks for stage in stages if stage)
                bar.n = sum(stage.numCompletedTasks for stage in stages if stage)
                bar.refresh()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
