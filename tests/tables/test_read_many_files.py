"""A run of many files: they are read as its manifest lists them, and the store is asked by folder, not by file."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import DataFrameReader, SparkSession
from small_publication import MEASURED, REJECTED, ROWS, leaves, measured, publication, rejects

from geosieve.tables.read import committed_runs, read_runs
from geosieve.tables.schemas import REJECTS


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many paths each reading names to Spark."""
    counts: list[int] = []
    whole = DataFrameReader.parquet

    def parquet(reader: DataFrameReader, *paths: str, **options: Any) -> Any:
        counts.append(len(paths))
        return whole(reader, *paths, **options)

    monkeypatch.setattr(DataFrameReader, "parquet", parquet)
    return counts


def read(spark: SparkSession, root: Path) -> list[tuple[Any, ...]]:
    runs = committed_runs(spark, str(root), MEASURED)
    return sorted(map(tuple, read_runs(spark, str(root), MEASURED, runs).collect()))


def test_a_run_of_many_files(spark: SparkSession, tmp_path: Path, asked: list[int]) -> None:
    for run_id in ("r1", "r2"):
        attempt = publication(spark, tmp_path, run_id)
        assert attempt.begin()
        attempt.write(MEASURED, measured(spark, files=ROWS if run_id == "r1" else 2))
        attempt.write(REJECTS, rejects(spark))
        attempt.commit(ROWS + REJECTED, "{}")
    leaf = leaves(tmp_path)["measured"]
    expected = sorted((n, n * 1.5, "lab", run) for n in range(ROWS) for run in ("r1", "r2"))
    asked.clear()
    assert read(spark, tmp_path) == expected
    assert asked == [2]  # folders
    # What another attempt at the same run puts beside them, in a write of its own, at any time.
    first = next(iter(sorted(leaf.glob("part-*"))))
    other = first.name.replace(first.name.split("-", 2)[2][:36], str(uuid.uuid4()))
    shutil.copy(first, leaf / other)
    asked.clear()
    assert read(spark, tmp_path) == expected and asked == [2]
    # A file by a name of the run's own write that the manifest does not list: then each file is named.
    shutil.copy(first, leaf / first.name.replace("part-", "part-9"))
    asked.clear()
    assert read(spark, tmp_path) == expected and asked == [ROWS + 2]
