"""Runs leave the tables whole: by a list that was looked at, after a grace period, and never from under an answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession
from small_rankings import OVERLAY, REGIONS, TABLES, publish
from workspace import JOBS, Report, Workspace

from geosieve.runtime.errors import (
    EXIT_BAD_CONFIG,
    EXIT_BAD_INPUT,
    EXIT_DONE,
    EXIT_INTERNAL,
    EXIT_NOTHING_TO_DO,
    EXIT_RETRYABLE,
)
from geosieve.runtime.files import Files
from geosieve.runtime.lease import held
from geosieve.sql.compact import compact
from geosieve.sql.config import CompactConfig, RegisterConfig, RetireConfig
from geosieve.sql.iceberg import CATALOG, IcebergTable
from geosieve.sql.register import register_tables
from geosieve.sql.retire import JOB, retire_runs
from geosieve.tables.publish import Leaf, Publication
from geosieve.tables.read import committed_runs, read_runs
from geosieve.tables.schemas import IMAGE_SUMMARY, OVERLAY_ATOMS, RANKED_REGIONS, SCANNED_FILES

OVER = {"grace_days": 0}


class Keeper(Workspace):
    """Runs of the ranking `archive`, and the jobs that keep them."""

    def __init__(self, root: Path, spark: SparkSession) -> None:
        super().__init__(root)
        self.spark = spark
        self.catalog: dict[str, Any] | None = None
        self.jobs = {
            **JOBS,
            **{JOB: (RetireConfig, retire_runs), "compact": (CompactConfig, compact)},
            "register_tables": (RegisterConfig, register_tables),
        }

    def publish(self, run_id: str, images: str, copies: Any = None, **options: str) -> None:
        publish(self.spark, str(self.tables), run_id, images.split(), copies, **options)

    def retire(self, chosen: dict[str, Any], checksum: str | None = None, *options: str, **change: Any) -> Report:
        path = self.root / "retire.json"
        config = {"root": str(self.tables), "retire": chosen, "catalog": self.catalog, "checksum": checksum, **change}
        path.write_text(json.dumps(config))
        return self.command(JOB, path, *options)

    def looked_at(self, chosen: dict[str, Any], **change: Any) -> str:
        """The checksum that a look at the list gives."""
        code, report = self.retire(chosen, **change)
        assert code == EXIT_DONE and report["status"] == "dry_run", report["error"]
        assert f"--set checksum={report['details']['checksum']}" in self.printed
        return str(report["details"]["checksum"])

    def register(self, tables: list[str] | None = None) -> Report:
        self.catalog = {"kind": "sqlite", "folder": str(self.root / "catalog")}
        path = self.root / "register.json"
        path.write_text(json.dumps({"root": str(self.tables), "catalog": self.catalog, "tables": tables}))
        return self.command("register_tables", path)

    def runs(self, table: Any = IMAGE_SUMMARY) -> list[str]:
        return sorted(run.run_id for run in committed_runs(self.spark, str(self.tables), table))

    def leaves(self, run_id: str) -> list[Path]:
        return sorted(self.tables.glob(f"*/*/run_id={run_id}"))

    def registered(self, table: str = "ranked_regions") -> list[str]:
        rows = self.spark.sql(f"SELECT DISTINCT run_id FROM {CATALOG}.geosieve.{table} ORDER BY run_id").collect()
        return [row[0] for row in rows]


@pytest.fixture
def keeper(tmp_path: Path, spark: SparkSession) -> Keeper:
    made = Keeper(tmp_path, spark)
    for run_id, images in (("r1", "a b"), ("r2", "c"), ("r3", "d e f")):
        made.publish(run_id, images)
    return made


def test_a_look_changes_nothing_and_lists_every_folder(keeper: Keeper) -> None:
    before = {path: path.stat().st_mtime_ns for path in keeper.tables.rglob("*")}
    checksum = keeper.looked_at({"runs": ["r1"]})
    assert {path: path.stat().st_mtime_ns for path in keeper.tables.rglob("*")} == before
    assert checksum.startswith(f"4-4-{2 + 2 + 2 * REGIONS + 2}-")  # leaves, files, rows
    for table in TABLES:
        assert f"{table.name}/ranking=archive/run_id=r1: 1 files" in keeper.printed


def test_out_of_the_catalogue_first_and_off_the_store_after_the_grace_period(keeper: Keeper) -> None:
    keeper.register()
    chosen = {"runs": ["r1"]}
    reading = read_runs(
        keeper.spark,
        str(keeper.tables),
        RANKED_REGIONS,
        committed_runs(keeper.spark, str(keeper.tables), RANKED_REGIONS),
    )
    checksum = keeper.looked_at(chosen)
    code, report = keeper.retire(chosen, checksum)
    assert code == EXIT_DONE and report["details"]["retired"] == 4, report["error"]
    assert keeper.registered() == ["r2", "r3"] and keeper.runs(RANKED_REGIONS) == keeper.runs() == ["r2", "r3"]
    assert reading.count() == 6 * REGIONS  # who had begun goes on
    assert len(keeper.leaves("r1")) == 4
    keeper.register()
    assert keeper.registered() == ["r2", "r3"]  # nothing brings it back
    code, report = keeper.retire(chosen, checksum)
    assert code == EXIT_NOTHING_TO_DO and len(keeper.leaves("r1")) == 4 and report["details"]["files_go_at"]
    code, report = keeper.retire(chosen, checksum, **OVER)
    assert code == EXIT_DONE and report["details"]["deleted"] == 4, report["error"]
    assert keeper.leaves("r1") == [] and len(keeper.leaves("r2")) == 4
    assert keeper.retire(chosen, checksum, **OVER)[0] == EXIT_NOTHING_TO_DO
    assert (
        keeper.registered() == ["r2", "r3"] and keeper.spark.table(f"{CATALOG}.geosieve.ranked_regions").count() == 12
    )
    assert {path.name for path in keeper.tables.glob("_retired/*/*.json")} == {
        *("plan.json", "retired.json", "deleted.json")
    }


def test_only_the_list_that_was_looked_at(keeper: Keeper) -> None:
    chosen = {"all_but_newest": 2}
    checksum = keeper.looked_at(chosen)
    keeper.publish("r4", "g")
    code, report = keeper.retire(chosen, checksum, **OVER)
    assert code == EXIT_BAD_INPUT and "4 runs then, 8 now" in report["error"] and "run_id=r2" in report["error"]
    assert keeper.runs() == ["r1", "r2", "r3", "r4"] and not (keeper.tables / "_retired").exists()
    code, report = keeper.retire(chosen, keeper.looked_at(chosen), **OVER)
    assert code == EXIT_DONE and keeper.runs() == ["r3", "r4"] and keeper.leaves("r1") == keeper.leaves("r2") == []


def test_runs_are_chosen_by_age_table_and_values(keeper: Keeper) -> None:
    keeper.publish("r1", "z", ranking="other")
    keeper.looked_at({"runs": ["r1"]}, values={"ranking": "other"})
    assert keeper.printed.count("ranking=other/run_id=r1:") == 4 and "ranking=archive" not in keeper.printed
    keeper.looked_at({"runs": ["r1"]}, tables=["scanned_files"])
    assert keeper.printed.count("run_id=r1:") == 2
    assert keeper.retire({"older_than_days": 1})[0] == EXIT_NOTHING_TO_DO
    keeper.looked_at({"older_than_days": 1e-9}, values={"ranking": "archive"})
    assert keeper.printed.count("run_id=") == 12
    code, report = keeper.retire({"runs": ["r11"]})
    assert code == EXIT_BAD_INPUT and "'r1'" in report["error"]
    assert keeper.retire({"runs": ["r1"], "all_but_newest": 1})[0] == EXIT_BAD_CONFIG
    code, report = keeper.retire({"runs": ["r1"]}, values={"rankin": "archive"})
    assert code == EXIT_BAD_CONFIG and "'ranking'" in report["error"]


def test_answers_that_others_refer_to_stay(keeper: Keeper) -> None:
    keeper.publish("r4", "g", {"copy_of_a": ("r1", "a"), "copy_of_b": ("r1", "b")})
    code, report = keeper.retire({"runs": ["r1"]})
    assert code == EXIT_BAD_INPUT and "2 images of run r4 of archive have their answer in r1" in report["error"]
    code, report = keeper.retire({"runs": ["r2"]}, tables=["ranked_regions"])  # its own summaries
    assert code == EXIT_BAD_INPUT and "1 images of run r2" in report["error"]
    keeper.looked_at({"runs": ["r1", "r4"]})
    keeper.looked_at({"runs": ["r4"]})


def test_not_while_a_scan_is_at_work(keeper: Keeper) -> None:
    chosen = {"runs": ["r1"]}
    checksum = keeper.looked_at(chosen)
    lock = f"{keeper.tables}/_locks/geolocate_archive/archive.json"
    with held(Files(keeper.spark), lock, "r4", 60):
        assert keeper.looked_at(chosen) == checksum  # looking is free
        assert keeper.retire(chosen, checksum)[0] == EXIT_RETRYABLE
        keeper.publish("r4", "g", {"copy_of_a": ("r1", "a")})
    code, report = keeper.retire(chosen, checksum)
    assert code == EXIT_BAD_INPUT and "of run r4 of archive" in report["error"]


def test_a_configuration_that_names_a_run_is_a_warning(keeper: Keeper) -> None:
    keeper.publish("r4", "g", config=json.dumps({"overlay": {"name": "x", "run": "r2"}}))
    _, report = keeper.retire({"runs": ["r2"]})
    (warning,) = report["warnings"]
    assert "run_id=r4 names r2" in warning


def test_an_overlay_that_answers_need_is_a_warning(keeper: Keeper) -> None:
    spark, root = keeper.spark, str(keeper.tables)

    def overlay(run_id: str, digest: str) -> None:
        row = {column.name: 0.0 if column.type == "double" else 1 for column in OVERLAY_ATOMS.columns}
        frame = spark.createDataFrame([tuple({**row, "overlay_hash": digest}.values())], OVERLAY_ATOMS.spark_schema())
        publication = Publication(spark, root, run_id, "{}", "0" * 64, [Leaf(OVERLAY_ATOMS, {"overlay": "world"})])
        assert publication.begin()
        publication.write(OVERLAY_ATOMS, frame)
        publication.commit(1, "{}")

    overlay("o1", OVERLAY)
    overlay("o2", "e" * 64)
    _, report = keeper.retire({"runs": ["o1"]})
    (warning,) = report["warnings"]
    assert "ranking archive are regions of the overlay ffff" in warning
    assert keeper.retire({"runs": ["o2"]})[1]["warnings"] == []
    overlay("o3", OVERLAY)  # the same overlay, built again
    assert keeper.retire({"runs": ["o1"]})[1]["warnings"] == []


def test_replaced_runs_go_and_the_new_one_keeps_their_answers(keeper: Keeper) -> None:
    keeper.publish("r4", "g", {"copy_of_a": ("r1", "a")})
    keeper.register()
    path = keeper.root / "compact.json"
    path.write_text(json.dumps({"root": str(keeper.tables), "ranking": "archive"}))
    assert keeper.command("compact", path)[0] == EXIT_DONE
    keeper.register()
    chosen = {"replaced": True}
    code, report = keeper.retire(chosen, keeper.looked_at(chosen), **OVER)
    assert code == EXIT_DONE and report["details"]["deleted"] == 4 * 3, report["error"]
    assert keeper.runs() == keeper.runs(RANKED_REGIONS) == keeper.registered() == ["compact-000001"]
    for name in ("r1", "r2", "r3", "r4"):
        assert [path.parts[-3] for path in keeper.leaves(name)] == ["scanned_files"]
    assert len(keeper.leaves("compact-000001")) == 3
    assert keeper.retire(chosen)[0] == EXIT_NOTHING_TO_DO


def test_with_a_run_goes_what_it_has_replaced(keeper: Keeper) -> None:
    """Else the rows of those would come back."""
    path = keeper.root / "compact.json"
    path.write_text(json.dumps({"root": str(keeper.tables), "ranking": "archive"}))
    assert keeper.command("compact", path)[0] == EXIT_DONE
    chosen = {"runs": ["compact-000001"]}
    code, report = keeper.retire(chosen, tables=["image_summary", "ranked_regions"])
    assert code == EXIT_BAD_INPUT and "in all tables" in report["error"]
    code, report = keeper.retire(chosen, keeper.looked_at(chosen))
    assert code == EXIT_DONE and keeper.runs() == keeper.runs(RANKED_REGIONS) == []
    assert keeper.runs(SCANNED_FILES) == ["r1", "r2", "r3"]


def test_a_run_that_is_made_again_within_the_grace_period_stays(keeper: Keeper) -> None:
    chosen = {"runs": ["r1"]}
    checksum = keeper.looked_at(chosen)
    keeper.retire(chosen, checksum)
    keeper.publish("r1", "a b z")
    code, report = keeper.retire(chosen, checksum, **OVER)
    assert code == EXIT_DONE and report["details"]["deleted"] == 0 and len(report["warnings"]) == 4
    assert keeper.runs() == ["r1", "r2", "r3"]


class Death:
    """Ends a job in place of its change number `last`, from 0."""

    def __init__(self, last: int) -> None:
        self.left = last

    def before(self, change: Callable[..., Any]) -> Callable[..., Any]:
        def dying(*arguments: Any) -> Any:
            if self.left == 0:
                raise RuntimeError("killed")
            self.left -= 1
            return change(*arguments)

        return dying


@pytest.mark.parametrize("with_catalogue", [False, True])
def test_killed_between_any_two_steps_it_ends_as_if_it_had_not(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_catalogue: bool
) -> None:
    """At no moment does a marker list files that are not there, or a summary refer to answers that are not."""
    both = [IMAGE_SUMMARY.name, RANKED_REGIONS.name]
    changes = {"write_text": Files, "delete": Files, "remove": IcebergTable}
    for last in range(100):
        keeper = Keeper(tmp_path / f"{last}", spark)
        keeper.root.mkdir()
        for run_id, images in (("r1", "a"), ("r2", "b")):
            keeper.publish(run_id, images)
        if with_catalogue:
            keeper.register(both)
        chosen, change = {"runs": ["r1"]}, {**OVER, "tables": both}
        checksum = keeper.looked_at(chosen, **change)
        death = Death(last)
        with monkeypatch.context() as patch:
            for name, of in changes.items():
                patch.setattr(of, name, death.before(getattr(of, name)))
            code, _ = keeper.retire(chosen, checksum, **change)
        there = {table: committed_runs(spark, str(keeper.tables), table) for table in TABLES}
        for run in (run for of in there.values() for run in of):
            assert all(Path(run.uri.removeprefix("file:"), name).exists() for name in run.files)
        assert {run.run_id for run in there[IMAGE_SUMMARY]} <= {run.run_id for run in there[RANKED_REGIONS]}
        if code == EXIT_DONE:
            break
        assert code == EXIT_INTERNAL
        code, report = keeper.retire(chosen, checksum, **change)
        assert code in (EXIT_DONE, EXIT_NOTHING_TO_DO), report["error"]
        left = {path.parts[-3] for path in keeper.leaves("r1")}
        assert left == {table.name for table in TABLES} - set(both)
        assert keeper.runs() == keeper.runs(RANKED_REGIONS) == ["r2"] and len(keeper.leaves("r2")) == 4
        if with_catalogue:
            assert keeper.registered() == keeper.registered("image_summary") == ["r2"]
    assert last >= 8
