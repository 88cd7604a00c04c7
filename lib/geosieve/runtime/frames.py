"""Frames of Spark that are computed once and used several times."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pyspark import StorageLevel
from pyspark.sql import DataFrame, SparkSession


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


@contextmanager
def arrow_batches(spark: SparkSession, rows: int) -> Iterator[None]:
    """Inside the block, Python workers get at most `rows` rows at once: large arrays would fill their memory."""
    key = "spark.sql.execution.arrow.maxRecordsPerBatch"
    before = spark.conf.get(key)
    spark.conf.set(key, rows)
    try:
        yield
    finally:
        spark.conf.set(key, str(before))
