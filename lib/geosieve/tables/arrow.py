"""Arrow batches in Spark's workers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa
from pyspark.sql import SparkSession

TASK_ROWS = 300_000
"""Rows of a task, about: Spark's ranges are a tenth or so larger and smaller."""
CHUNK_ROWS = 400_000
"""Rows that a worker handles at once: a task's, mostly, so that no pixels are decoded for a small rest once more."""


def tasks_for(spark: SparkSession, rows: int) -> int:
    """How many tasks share about so many rows: TASK_ROWS or less each, and two for each core."""
    return max(2 * int(spark.sparkContext.defaultParallelism), -(-rows // TASK_ROWS))


def chunks(batches: Iterable[pa.RecordBatch], rows: int = CHUNK_ROWS) -> Iterator[pa.Table]:
    """Batches put together to tables of at least `rows` rows, the last one smaller: bounded memory."""
    held: list[pa.RecordBatch] = []
    n = 0
    for batch in batches:
        held.append(batch)
        n += batch.num_rows
        if n >= rows:
            yield pa.Table.from_batches(held)
            held, n = [], 0
    if n:
        yield pa.Table.from_batches(held)
