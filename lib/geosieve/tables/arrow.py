"""Sizes of Spark tasks, and of the Arrow tables that Python workers process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import pyarrow as pa
from pyspark.sql import SparkSession

TASK_ROWS = 300_000
"""Approximate number of rows per task. Spark's range partitions are about a tenth larger or smaller."""
CHUNK_ROWS = 400_000
"""Number of rows that a worker processes at once.

It exceeds TASK_ROWS, so that one chunk mostly has all rows of a task, and no raster block is decoded again for a small
rest.
"""

_LARGE_ROWS_AT_ONCE, _BYTES_AT_ONCE = 64, 8 << 20
"""Of rows that hold files."""
ROWS_AT_ONCE = 1_024
"""Number of rows that a worker makes one by one, from files, and hands to Spark at once."""


def tasks_for(spark: SparkSession, rows: int) -> int:
    """The number of tasks for about `rows` rows: at most TASK_ROWS per task, and at least two tasks per core."""
    return max(2 * int(spark.sparkContext.defaultParallelism), -(-rows // TASK_ROWS))


def in_batches(rows: Iterable[dict[str, Any]], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Batches of at most ROWS_AT_ONCE rows; only those of one batch are in memory at a time."""
    left = iter(rows)
    while some := list(islice(left, ROWS_AT_ONCE)):
        yield pa.RecordBatch.from_pylist(some, schema=schema)


def in_small_batches(rows: Iterable[dict[str, Any]], schema: pa.Schema, *files: str) -> Iterator[pa.RecordBatch]:
    """Batches of at most 64 rows, and of some 8 MB, of rows with the bytes of files in the columns `files`."""
    some: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        some.append(row)
        size += sum(len(row[name]) for name in files if row.get(name) is not None)
        if len(some) == _LARGE_ROWS_AT_ONCE or size > _BYTES_AT_ONCE:
            yield pa.RecordBatch.from_pylist(some, schema=schema)
            some, size = [], 0
    if some:
        yield pa.RecordBatch.from_pylist(some, schema=schema)


def chunks(batches: Iterable[pa.RecordBatch], rows: int = CHUNK_ROWS) -> Iterator[pa.Table]:
    """Join batches into tables of at least `rows` rows; the last table may be smaller.

    Only the batches of one table are in memory at a time. Without rows, no table is yielded.
    """
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
