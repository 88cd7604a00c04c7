"""Frames of Spark that are computed once and used several times."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

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
def anew_on_disk(frame: DataFrame) -> Iterator[DataFrame]:
    """As `on_disk`, but the frame that comes back has no plan before it.

    With every operation on a frame, Spark analyses its plan from the start, also that of what is kept: a job that joins
    such frames again and again would plan for longer than it works. A lost block is computed again as with `on_disk`.
    Spark no longer knows how large the frame is: in a join, hint what is to be broadcast.
    """
    with on_disk(frame) as kept:
        session: Any = kept.sparkSession._jsparkSession
        with _settings_for_tasks(kept.sparkSession):
            rows = kept._jdf.queryExecution().toRdd()
        yield DataFrame(session.internalCreateDataFrame(rows, kept._jdf.schema(), False), kept.sparkSession)


@contextmanager
def _settings_for_tasks(spark: SparkSession) -> Iterator[None]:
    """Inside the block, tasks see the session's settings of SQL, as in a query, and not Spark's defaults."""
    context: Any = spark.sparkContext
    session: Any = spark._jsparkSession
    found = context._jvm.scala.collection.JavaConverters.mapAsJavaMap(session.sessionState().conf().getAllConfs())
    settings = {name: value for name, value in dict(found).items() if name.startswith("spark.sql.")}
    before = {name: context.getLocalProperty(name) for name in settings}
    for name, value in settings.items():
        context.setLocalProperty(name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            context.setLocalProperty(name, value)


@contextmanager
def rows_with_files(spark: SparkSession) -> Iterator[None]:
    """Inside the block, tables whose rows hold files are read 64 rows at a time.

    By default Spark's reader of Parquet holds 4,096 rows of a column at once: of images of 1 MB, 4 GB for each task.
    """
    key = "spark.sql.parquet.columnarReaderBatchSize"
    before = spark.conf.get(key)
    spark.conf.set(key, 64)
    try:
        yield
    finally:
        spark.conf.set(key, str(before))


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
