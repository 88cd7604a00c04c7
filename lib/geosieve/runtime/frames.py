"""Frames of Spark that are computed once and used several times."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pyspark import StorageLevel
from pyspark.sql import DataFrame


@contextmanager
def on_disk(frame: DataFrame) -> Iterator[DataFrame]:
    """`frame`, computed when it is first used and then kept, until the end of the block.

    It is kept on the executors' disks, because it may be larger than their memory.
    """
    kept = frame.persist(StorageLevel.DISK_ONLY)
    try:
        yield kept
    finally:
        kept.unpersist()
