"""A key in several runs: the latest run's rows count, whatever the runs are called, and others stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession
from small_publication import MEASURED

from geosieve.tables.publish import Leaf, Publication
from geosieve.tables.read import Run, committed_runs, latest_rows, read_runs, with_places

RUNS = [("lab", "z", {1: 1.5, 2: 2.5}), ("field", "z", {1: 7.5}), ("lab", "a", {2: 5.5, 3: 3.5}), ("lab", "m", {4: 0})]
"""Source, run id, and values by id, in the order of the commits."""


@pytest.fixture
def runs(spark: SparkSession, tmp_path: Path) -> list[Run]:
    for source, run_id, values in RUNS:
        leaf = Leaf(MEASURED, {"source": source})
        attempt = Publication(spark, str(tmp_path), run_id, "{}", "0" * 64, [leaf])
        assert attempt.begin()
        rows = [(number, float(value)) for number, value in values.items()]
        attempt.write(MEASURED, spark.createDataFrame(rows, MEASURED.spark_schema()))
        attempt.commit(len(rows), "{}")
    found = {(run.values["source"], run.run_id): run for run in committed_runs(spark, str(tmp_path), MEASURED)}
    return [found[source, run_id] for source, run_id, _ in RUNS]


def latest(spark: SparkSession, root: Path, runs: list[Run], *keys: str, where: str = "true") -> set[tuple[Any, ...]]:
    rows = latest_rows(read_runs(spark, str(root), MEASURED, runs).where(where), runs, *keys)
    assert rows.columns == ["id", "value", "source", "run_id"]
    found = [tuple(row) for row in rows.collect()]
    assert len(found) == len(set(found))
    return set(found)


def test_the_latest_run_that_has_a_key_counts(spark: SparkSession, tmp_path: Path, runs: list[Run]) -> None:
    kept = {(1, 1.5, "lab", "z"), (2, 5.5, "lab", "a"), (3, 3.5, "lab", "a"), (4, 0.0, "lab", "m")}
    assert latest(spark, tmp_path, runs, "source", "id") == {*kept, (1, 7.5, "field", "z")}
    # Of one id, the other source's run is the later one: both are called z.
    assert latest(spark, tmp_path, runs, "id") == {*kept - {(1, 1.5, "lab", "z")}, (1, 7.5, "field", "z")}
    assert latest(spark, tmp_path, runs[:1], "id") == {(1, 1.5, "lab", "z"), (2, 2.5, "lab", "z")}


def test_rows_of_one_run_all_stay(spark: SparkSession, tmp_path: Path, runs: list[Run]) -> None:
    assert latest(spark, tmp_path, runs[:3], "source") == {
        *{(2, 5.5, "lab", "a"), (3, 3.5, "lab", "a")},
        (1, 7.5, "field", "z"),
    }


def test_rows_that_were_left_out_before_hide_no_others(spark: SparkSession, tmp_path: Path, runs: list[Run]) -> None:
    assert (2, 2.5, "lab", "z") in latest(spark, tmp_path, runs, "source", "id", where="value < 4")


def test_places_are_those_in_the_list(spark: SparkSession, tmp_path: Path, runs: list[Run]) -> None:
    rows = with_places(read_runs(spark, str(tmp_path), MEASURED, runs), runs)
    assert {(row.source, row.run_id, row.place) for row in rows.collect()} == {
        *{("lab", "z", 0), ("field", "z", 1)},
        *{("lab", "a", 2), ("lab", "m", 3)},
    }
