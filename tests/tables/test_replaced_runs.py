"""A run in place of others: readers see the rows of either, in all tables at once, and never of both or of none."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyspark.sql import SparkSession
from small_publication import MEASURED, REJECTED, ROWS, leaves, measured, publication, publish, rejects

from geosieve.tables.publish import Publication
from geosieve.tables.read import committed_runs, marked_runs, read_committed, replaced
from geosieve.tables.schema import Table
from geosieve.tables.schemas import REJECTS


def ids(spark: SparkSession, root: Path, table: Table = MEASURED, **values: str) -> list[str]:
    return sorted(run.run_id for run in committed_runs(spark, str(root), table, **values))


def replace(spark: SparkSession, root: Path, run_id: str, old: list[str]) -> Publication:
    """A run with the rows of others, before its commit."""
    new = publication(spark, root, run_id)
    assert new.begin()
    new.write(MEASURED, measured(spark, ROWS * len(old)))
    new.write(REJECTS, rejects(spark))
    attempts = {
        table.name: {run.run_id: run.attempt for run in marked_runs(spark, str(root), table) if run.run_id in old}
        for table in (MEASURED, REJECTS)
    }
    new.replace(attempts)
    return new


def commit(new: Publication, rows: int) -> None:
    new.commit(rows + REJECTED, '{"status": "done"}')


@pytest.fixture
def root(tmp_path: Path, spark: SparkSession) -> Path:
    for run_id in ("r1", "r2"):
        assert publish(spark, tmp_path, run_id)
    return tmp_path


def test_it_counts_and_they_do_not_from_its_commit_on(spark: SparkSession, root: Path) -> None:
    new = replace(spark, root, "both", ["r1", "r2"])
    assert ids(spark, root) == ["r1", "r2"]
    commit(new, 2 * ROWS)
    for table in (MEASURED, REJECTS):
        assert ids(spark, root, table) == ["both"]
        marked = marked_runs(spark, str(root), table)
        assert [run.run_id for run in marked] == ["r1", "r2", "both"]
        assert [run.run_id for run in replaced(marked)] == ["r1", "r2"]
    assert read_committed(spark, str(root), MEASURED).count() == 2 * ROWS
    assert ids(spark, root, run_id="r1") == [] and ids(spark, root, run_id="both") == ["both"]
    assert ids(spark, root, source="lab") == ["both"]


def test_all_tables_switch_with_the_main_one(spark: SparkSession, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rejects get their marker first. Until `measured` has it, nothing has changed for them, either."""
    new = replace(spark, root, "both", ["r1", "r2"])
    mark, seen = Publication._mark, []

    def looking(self: Publication, uri: str, manifest: dict[str, object]) -> None:
        mark(self, uri, manifest)
        seen.append([ids(spark, root, table) for table in (REJECTS, MEASURED)])

    monkeypatch.setattr(Publication, "_mark", looking)
    commit(new, 2 * ROWS)
    assert seen == [[["r1", "r2"], ["r1", "r2"]], [["both"], ["both"]]]


def test_runs_that_are_not_named_and_runs_of_other_values_stay(spark: SparkSession, root: Path) -> None:
    commit(replace(spark, root, "one", ["r1"]), ROWS)
    assert ids(spark, root) == ["one", "r2"]


def test_a_run_id_that_is_used_anew_counts(spark: SparkSession, root: Path) -> None:
    """Only the attempt whose rows are in the new run is replaced."""
    commit(replace(spark, root, "both", ["r1", "r2"]), 2 * ROWS)
    for leaf in leaves(root).values():
        for path in leaf.rglob("*"):
            if path.is_file():
                path.unlink()
    assert publish(spark, root, "r1")
    assert ids(spark, root) == ["both", "r1"]


def test_replaced_twice(spark: SparkSession, root: Path) -> None:
    commit(replace(spark, root, "both", ["r1", "r2"]), 2 * ROWS)
    assert publish(spark, root, "r3")
    commit(replace(spark, root, "three", ["both", "r3", "r1", "r2"]), 4 * ROWS)
    assert ids(spark, root) == ["three"]
    for folder in root.glob("*/*/run_id=both"), root.glob("*/*/*/run_id=both"):  # gone before what it has replaced
        for leaf in folder:
            (leaf / "_SUCCESS").unlink()
    assert ids(spark, root) == ids(spark, root, REJECTS) == ["three"]
