"""A run small enough to be published hundreds of times: a main table of 40 rows and 3 rejects."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from geosieve.tables.publish import Leaf, Publication
from geosieve.tables.read import committed_runs
from geosieve.tables.schema import Column, Table
from geosieve.tables.schemas import REJECTS

MEASURED = Table(
    "measured",
    "One row a measurement.",
    (Column("id", "bigint", "its number"), Column("value", "double", "what was measured")),
    (Column("source", "string", "who measured"),),
)
ROWS, REJECTED = 40, 3
CONFIG, DIGEST = '{"answer": 42}', "0" * 64


def measured(spark: SparkSession, rows: int = ROWS, files: int = 2) -> DataFrame:
    """Two files' worth of rows, the same ones every time."""
    return spark.range(0, rows, 1, files).select("id", (F.col("id") * 1.5).alias("value"))


def rejects(spark: SparkSession) -> DataFrame:
    """Three refused inputs."""
    columns = ("uri", "stage", "error_class", "message")
    return spark.range(0, REJECTED, 1, 1).select(
        F.col("id").cast("string").alias("id"), *(F.lit(name).alias(name) for name in columns)
    )


def publication(
    spark: SparkSession,
    root: Path | str,
    run_id: str = "r1",
    digest: str = DIGEST,
    warn: Callable[[str], None] | None = None,
) -> Publication:
    """A publication of the two tables, not begun."""
    leaves = [Leaf(REJECTS, {"job": "measure", "part": "all"}), Leaf(MEASURED, {"source": "lab"})]
    return Publication(spark, str(root), run_id, CONFIG, digest, leaves, warn)


def publish(spark: SparkSession, root: Path | str, run_id: str = "r1") -> bool:
    """One whole attempt; False if the run was committed already."""
    attempt = publication(spark, root, run_id)
    if not attempt.begin():
        return False
    attempt.write(MEASURED, measured(spark))
    attempt.write(REJECTS, rejects(spark))
    attempt.commit(ROWS + REJECTED, '{"status": "done"}')
    return True


def leaves(root: Path, run_id: str = "r1") -> dict[str, Path]:
    """The folders of the run by table."""
    return {
        "rejects": root / f"rejects/job=measure/part=all/run_id={run_id}",
        "measured": root / f"measured/source=lab/run_id={run_id}",
    }


def fingerprint(files: list[str]) -> str:
    """SHA-256 of the sorted rows of Parquet files: equal for equal contents, however they lie in files."""
    # pyarrow and not Spark: the kills are many, and these files are small.
    rows = sorted(repr(row) for file in files for row in pq.ParquetFile(file).read().to_pylist())
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def readable(spark: SparkSession, root: Path | str) -> dict[str, str]:
    """What a reader finds: fingerprints of the committed runs' listed files, by table."""
    found = {}
    for table in (REJECTS, MEASURED):
        runs = committed_runs(spark, str(root), table)
        if runs:
            files = [f"{run.uri.removeprefix('file:')}/{name}" for run in runs for name in run.files]
            found[table.name] = fingerprint(files)
    return found
