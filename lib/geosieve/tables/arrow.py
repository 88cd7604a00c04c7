"""Arrow batches in Spark's workers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa
from pyspark.sql import SparkSession

CHUNK_ROWS = 300_000
"""Rows that a worker handles at once."""


def tasks_for(spark: SparkSession, rows: int) -> int:
    """How many tasks share about so many rows: a chunk or less each, and two for each core."""
    return max(2 * int(spark.sparkContext.defaultParallelism), -(-rows // CHUNK_ROWS))


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
