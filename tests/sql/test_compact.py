"""One run in place of many: the same rows and the same answers, at every moment once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession
from small_rankings import COMPACTED, REGIONS, publish
from workspace import JOBS, Report, Workspace

from geosieve.runtime.errors import EXIT_BAD_INPUT, EXIT_DONE, EXIT_NOTHING_TO_DO, EXIT_RETRYABLE
from geosieve.runtime.files import Files
from geosieve.runtime.lease import held
from geosieve.sql import compact as module
from geosieve.sql.compact import compact
from geosieve.sql.config import CompactConfig, RegisterConfig
from geosieve.sql.iceberg import CATALOG, IcebergTable
from geosieve.sql.register import register_tables
from geosieve.tables.publish import Publication
from geosieve.tables.read import committed_runs, marked_runs, read_committed
from geosieve.tables.schemas import IMAGE_SUMMARY, RANKED_REGIONS, SCANNED_FILES

Answers = dict[str, list[tuple[str, int, int]]]


class Rankings(Workspace):
    """Runs of the ranking `archive`."""

    def __init__(self, root: Path, spark: SparkSession) -> None:
        super().__init__(root)
        self.spark = spark
        self.jobs = {**JOBS, "compact": (CompactConfig, compact), "register_tables": (RegisterConfig, register_tables)}

    def publish(self, run_id: str, images: str, copies: dict[str, tuple[str, str]] | None = None) -> None:
        publish(self.spark, str(self.tables), run_id, images.split(), copies)

    def compact(self, *options: str, **change: Any) -> Report:
        path = self.root / "compact.json"
        path.write_text(json.dumps({"root": str(self.tables), "ranking": "archive", **change}))
        return self.command("compact", path, *options)

    def register(self) -> Report:
        path = self.root / "register.json"
        catalog = {"kind": "sqlite", "folder": str(self.root / "catalog")}
        path.write_text(json.dumps({"root": str(self.tables), "catalog": catalog}))
        return self.command("register_tables", path)

    def runs(self, table: Any = IMAGE_SUMMARY) -> list[str]:
        return sorted(run.run_id for run in committed_runs(self.spark, str(self.tables), table))

    def answers(self) -> Answers:
        """What a reader finds by the links of image_summary: rank, atom and s2_id by image."""
        summary = read_committed(self.spark, str(self.tables), IMAGE_SUMMARY)
        return joined(summary, read_committed(self.spark, str(self.tables), RANKED_REGIONS))

    def registered(self) -> Answers:
        """The same by SQL on the catalogue."""
        summary, regions = (self.spark.table(f"{CATALOG}.geosieve.{t.name}") for t in (IMAGE_SUMMARY, RANKED_REGIONS))
        return joined(summary, regions)


def joined(summary: Any, regions: Any) -> Answers:
    left = summary.selectExpr(
        "ranking", "answer_run_id run_id", "answer_source source", "answer_image_id image_id", "image_id mine"
    )
    found: Answers = {}
    for row in left.join(regions, ["ranking", "run_id", "source", "image_id"], "left").collect():
        found.setdefault(row["mine"], []).append((row["rank"], row["atom"], row["s2_id"]))
    return {image: sorted(rows) for image, rows in found.items()}


@pytest.fixture
def rankings(tmp_path: Path, spark: SparkSession) -> Rankings:
    made = Rankings(tmp_path, spark)
    made.publish("r1", "a b c")
    made.publish("r2", "d e", {"copy_of_a": ("r1", "a")})
    made.publish("r3", "f", {"copy_of_d": ("r2", "d"), "again_a": ("r1", "a")})
    return made


def test_all_answers_stay_and_each_row_is_there_once(rankings: Rankings) -> None:
    before = rankings.answers()
    assert len(before) == 9 and all(len(rows) == REGIONS for rows in before.values())
    code, report = rankings.compact()
    assert code == EXIT_DONE, report["error"]
    assert report["details"]["run"] == "compact-000001" and report["details"]["replaces"] == ["r1", "r2", "r3"]
    assert (report["rows_in"], report["rows_out"]) == (9, 9)
    assert report["details"]["tables"]["ranked_regions"] == {"rows": 18, "runs": 3, "files_before": 3, "files": 1}
    assert all(rankings.runs(table) == ["compact-000001"] for table in COMPACTED)
    assert rankings.runs(SCANNED_FILES) == ["r1", "r2", "r3"]  # a scan compares its files run by run
    assert rankings.answers() == before
    kept = marked_runs(rankings.spark, str(rankings.tables), IMAGE_SUMMARY)
    assert [run.run_id for run in kept] == ["r1", "r2", "r3", "compact-000001"]  # nothing is deleted
    leaf = rankings.tables / "image_summary/ranking=archive/run_id=compact-000001"
    listed = json.loads((leaf / "_replaces.json").read_text())["replaces"]
    assert listed == {table.name: ["r1", "r2", "r3"] for table in COMPACTED}
    code, _ = rankings.compact()
    assert code == EXIT_NOTHING_TO_DO


def test_files_are_sorted_as_their_table_is(rankings: Rankings) -> None:
    rankings.compact()
    (path,) = rankings.tables.glob("ranked_regions/ranking=archive/run_id=compact-000001/*.parquet")
    ids = pq.read_table(path, partitioning=None)["s2_id"].to_pylist()
    assert ids == sorted(ids) and len(set(ids)) > 3


def test_a_compacted_run_is_compacted_again(rankings: Rankings) -> None:
    rankings.compact()
    rankings.publish("r4", "g", {"copy_of_b": ("compact-000001", "b"), "late": ("r1", "c")})
    before = rankings.answers()
    assert before["late"] == [(None, None, None)]  # its run had begun before r1 was replaced
    code, report = rankings.compact()
    assert code == EXIT_DONE, report["error"]
    assert report["details"]["replaces"] == ["compact-000001", "r1", "r2", "r3", "r4"]
    assert rankings.runs() == ["compact-000002"]
    assert rankings.answers() == {**before, "late": before["c"]}


def test_a_run_with_images_that_are_answered_again_stays_and_what_it_refers_to(rankings: Rankings) -> None:
    rankings.publish("r4", "g h")
    rankings.publish("r5", "f i")  # f of r3 does not count any more
    before = rankings.answers()
    code, report = rankings.compact()
    assert code == EXIT_DONE, report["error"]
    assert set(report["details"]["left"]) == {"r1", "r2", "r3"}  # r3 refers to both others
    assert report["details"]["replaces"] == ["r4", "r5"]
    assert rankings.runs() == ["compact-000001", "r1", "r2", "r3"] and rankings.answers() == before


def test_large_runs_stay(rankings: Rankings) -> None:
    code, report = rankings.compact(small_mib=1e-6)
    assert code == EXIT_NOTHING_TO_DO and set(report["details"]["left"].values()) == {"large"}


def test_a_dry_run_and_a_ranking_that_is_not_there(rankings: Rankings) -> None:
    before = sorted(rankings.tables.rglob("*"))
    code, report = rankings.compact("--dry-run")
    assert code == EXIT_DONE and report["status"] == "dry_run" and "r1, r2, r3" in rankings.printed
    assert sorted(rankings.tables.rglob("*")) == before
    code, report = rankings.compact(ranking="archiv")
    assert code == EXIT_BAD_INPUT and "no committed run" in report["error"]


def test_not_while_a_scan_is_at_work(rankings: Rankings) -> None:
    """It has read answers that it may refer to."""
    lock = f"{rankings.tables}/_locks/geolocate_archive/archive.json"
    with held(Files(rankings.spark), lock, "r4", 60):
        code, report = rankings.compact()
    assert code == EXIT_RETRYABLE and "run r4" in report["error"]
    assert rankings.compact()[0] == EXIT_DONE


def test_a_run_that_comes_meanwhile_is_not_lost(rankings: Rankings, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may refer to runs that are about to be replaced, so all begins again."""
    attach = Publication.attach

    def late(self: Publication, table: Any, name: str, content: Any) -> None:
        if name == module.REPLACES:
            monkeypatch.undo()
            rankings.publish("r4", "g", {"copy_of_b": ("r1", "b")})
        attach(self, table, name, content)

    monkeypatch.setattr(Publication, "attach", late)
    code, report = rankings.compact()
    assert code == EXIT_RETRYABLE, report["error"]
    assert rankings.runs() == ["r1", "r2", "r3", "r4"]
    before = rankings.answers()
    code, report = rankings.compact()
    assert code == EXIT_DONE, report["error"]
    assert rankings.runs() == ["compact-000001"] and rankings.answers() == before


def test_sql_engines_switch_too(rankings: Rankings) -> None:
    assert rankings.register()[0] == EXIT_DONE
    before = rankings.registered()
    assert before == rankings.answers()
    rankings.compact()
    code, report = rankings.register()
    assert code == EXIT_DONE, report["error"]
    assert rankings.registered() == before
    for table, rows in (("ranked_regions", 18), ("image_summary", 9), ("predictions", 6)):
        found = rankings.spark.sql(f"SELECT run_id, count(*) FROM {CATALOG}.geosieve.{table} GROUP BY run_id").collect()
        assert [tuple(row) for row in found] == [("compact-000001", rows)]
    snapshots = rankings.spark.sql(f"SELECT * FROM {CATALOG}.geosieve.ranked_regions.snapshots").count()
    assert snapshots == 4  # three runs, and one commit that changes them all
    assert rankings.register()[0] == EXIT_NOTHING_TO_DO
    # A registration that had begun before adds an old run again: the next one takes it out.
    root, folders = str(rankings.tables), ("ranking", "run_id")
    old = marked_runs(rankings.spark, root, RANKED_REGIONS)[0]
    regions = IcebergTable.existing(rankings.spark, "geosieve", RANKED_REGIONS.name, folders)
    assert regions is not None and old.run_id == "r1" and regions.register(old)
    assert rankings.spark.table(regions.name).count() == 18 + 3 * REGIONS
    code, report = rankings.register()
    assert code == EXIT_DONE and report["details"]["runs"]["ranked_regions"] == {"committed": 1, "registered": 1}
    assert rankings.registered() == before and rankings.spark.table(regions.name).count() == 18


SCRIPT = """
import os, signal, sys
from geosieve.job.main import main
from geosieve.sql.compact import JOB, compact
from geosieve.sql.config import CompactConfig
from geosieve.tables.publish import Publication
mark, marks = Publication._mark, []
def counted(self, uri, manifest):
    marks.append(uri)
    if len(marks) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    mark(self, uri, manifest)
Publication._mark = counted
sys.exit(main(JOB, CompactConfig, compact, ["--config", sys.argv[1], "--local"]))
"""


def test_killed_between_its_tables_nothing_has_switched(rankings: Rankings) -> None:
    """Killed when the first two of three tables have their markers; then run again."""
    before = rankings.answers()
    path = rankings.root / "killed.json"
    path.write_text(json.dumps({"root": str(rankings.tables), "ranking": "archive"}))
    command = [sys.executable, "-c", SCRIPT, str(path), "3"]
    environment = {**os.environ, "PYSPARK_SUBMIT_ARGS": ""}
    environment.pop("PYSPARK_GATEWAY_PORT", None)
    environment.pop("PYSPARK_SUBMIT_ARGS")
    done = subprocess.run(command, capture_output=True, env=environment, check=False, timeout=300)
    assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]
    marker = rankings.tables / "ranked_regions/ranking=archive/run_id=compact-000001/_SUCCESS"
    assert marker.exists()
    assert all(rankings.runs(table) == ["r1", "r2", "r3"] for table in COMPACTED) and rankings.answers() == before
    code, report = rankings.compact()
    assert code == EXIT_DONE, report["error"]
    assert all(rankings.runs(table) == ["compact-000001"] for table in COMPACTED) and rankings.answers() == before
