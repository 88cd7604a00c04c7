"""Committed runs in an Iceberg catalogue: each once, whole or not at all, and nothing else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from box_partitions import box_partition
from pyspark.sql import SparkSession
from workspace import JOBS, Report, Workspace

from geosieve.runtime.errors import EXIT_BAD_CONFIG, EXIT_BAD_INPUT, EXIT_DONE, EXIT_INTERNAL, EXIT_NOTHING_TO_DO
from geosieve.sql.config import RegisterConfig
from geosieve.sql.iceberg import CATALOG
from geosieve.sql.register import JOB, register_tables

ROOT = Path(__file__).parents[2]
HALVES = {"west": (-180.0, -90.0, 0.0, 90.0), "east": (0.0, -90.0, 180.0, 90.0)}
BANDS = {"south": (-180.0, -90.0, 180.0, 0.0), "north": (-180.0, 0.0, 180.0, 90.0)}


class World(Workspace):
    """Two sources of images, labelled twice: once with one partition, once with two."""

    def __init__(self, root: Path, spark: SparkSession) -> None:
        super().__init__(root)
        self.spark, self.jobs = spark, {**JOBS, JOB: (RegisterConfig, register_tables)}
        rng = np.random.default_rng(0)
        for source, n in (("a", 30), ("b.c-d", 20)):
            self.ingest(rng.uniform(-80, 80, n), rng.uniform(-170, 170, n), source)
        halves, bands = box_partition(root, "halves", HALVES), box_partition(root, "bands", BANDS)
        for run, partitions in (("l1", [halves]), ("l2", [halves, bands])):
            code, report = self.label(partitions, run)
            assert code == EXIT_DONE, report["error"]

    def register(self, name: str, *options: str, **change: Any) -> Report:
        config = {"root": str(self.tables), "catalog": {"kind": "sqlite", "folder": str(self.root / name)}, **change}
        path = self.root / "register.json"
        path.write_text(json.dumps(config))
        return self.command(JOB, path, *options)

    def rows(self, table: str, where: str = "true", what: str = "count(*)") -> Any:
        return self.spark.sql(f"SELECT {what} FROM {CATALOG}.geosieve.{table} WHERE {where}").collect()


@pytest.fixture(scope="module")
def world(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("sql"), spark)


def test_every_committed_run_is_there_once(world: World) -> None:
    code, report = world.register("once")
    assert code == EXIT_DONE, report["error"]
    manifests = [json.loads(path.read_text()) for path in world.tables.rglob("_SUCCESS")]
    assert report["rows_in"] == len(manifests)
    assert report["rows_out"] == sum(one["rows"] > 0 for one in manifests)  # there is nothing to see of the others
    assert world.rows("images", what="source, count(*)", where="true GROUP BY source ORDER BY source") == [
        ("a", 30),
        ("b.c-d", 20),
    ]
    assert world.rows("labels")[0][0] == 100
    code, report = world.register("once")
    assert code == EXIT_NOTHING_TO_DO and report["rows_out"] == 0
    assert world.rows("labels")[0][0] == 100


def test_rows_are_those_of_the_files_with_null_for_columns_of_later_runs(world: World) -> None:
    world.register("once")
    for run in ("l1", "l2"):
        mine = world.rows("labels", f"run_id = '{run}' ORDER BY image_id", "image_id, lat, s2_id, halves, bands")
        frame = world.labels(run)
        assert [row["image_id"] for row in mine] == frame["image_id"].tolist()
        assert [row["lat"] for row in mine] == frame["lat"].tolist()
        assert [row["s2_id"] for row in mine] == frame["s2_id"].tolist()
        assert [row["halves"] for row in mine] == frame["halves"].tolist()
        assert [row["bands"] for row in mine] == (frame["bands"].tolist() if run == "l2" else [None] * 50)


def test_a_filter_on_the_run_reads_its_files_alone(world: World) -> None:
    world.register("once")
    files = world.rows("labels", "run_id = 'l1'", "DISTINCT input_file_name()")
    assert files and all("run_id=l1" in row[0] for row in files)


def test_a_later_run_is_added_and_a_run_in_the_making_is_not(world: World) -> None:
    world.register("later")
    before = world.rows("images")[0][0]
    world.ingest(np.array([1.0, 2.0]), np.array([3.0, 4.0]), "later")
    (leaf,) = world.tables.glob("images/source=later/run_id=*")
    marker = (leaf / "_SUCCESS").read_bytes()
    (leaf / "_SUCCESS").unlink()
    assert world.register("later")[0] == EXIT_DONE or world.rows("images")[0][0] == before  # its rejects may be new
    assert world.rows("images")[0][0] == before
    (leaf / "_SUCCESS").write_bytes(marker)
    code, report = world.register("later", tables=["images"])
    assert code == EXIT_DONE and report["rows_out"] == 1
    assert world.rows("images")[0][0] == before + 2


def test_files_that_differ_from_the_registered_ones_are_an_error(world: World, tmp_path: Path) -> None:
    world.register("differs")
    (leaf,) = world.tables.glob("images/source=a/run_id=*")
    marker = leaf / "_SUCCESS"
    whole = marker.read_text()
    manifest = json.loads(whole)
    (path,) = [leaf / entry["name"] for entry in manifest["files"]]
    copy = leaf / f"part-copy{path.suffix}"
    copy.write_bytes(path.read_bytes())
    manifest["files"] = [{**manifest["files"][0], "name": copy.name}]
    marker.write_text(json.dumps(manifest))
    marker.with_name("._SUCCESS.crc").unlink()  # by which Hadoop knows that it was changed
    try:
        code, report = world.register("differs")
        assert (code, "retire the run" in report["error"]) == (EXIT_INTERNAL, True), report["error"]
    finally:
        marker.write_text(whole)
        copy.unlink()


def test_iceberg_never_deletes_our_files(world: World) -> None:
    world.register("kept")
    before = sorted(world.tables.rglob("*.parquet"))
    world.spark.sql(f"DELETE FROM {CATALOG}.geosieve.labels WHERE run_id = 'l1'")
    assert world.rows("labels")[0][0] == 50
    world.spark.sql(f"DROP TABLE {CATALOG}.geosieve.images")
    assert sorted(world.tables.rglob("*.parquet")) == before
    code, report = world.register("kept")  # both come back
    assert code == EXIT_DONE, report["error"]
    assert world.rows("labels")[0][0] == 100 and world.rows("images")[0][0] >= 50


def test_bad_configurations_and_nothing_to_register(world: World, tmp_path: Path) -> None:
    code, report = world.register("x", tables=["label"])
    assert code == EXIT_BAD_CONFIG and "labels" in report["error"]
    code, report = world.register("x", root=str(tmp_path))
    assert code == EXIT_BAD_INPUT and "no committed run" in report["error"]
    code, report = world.register("dry", "--dry-run")
    assert code == EXIT_DONE and report["status"] == "dry_run" and not (world.root / "dry").exists()


SCRIPT = """
import sys
from geosieve.job.main import main
from geosieve.sql.config import RegisterConfig
from geosieve.sql.register import JOB, register_tables
sys.exit(main(JOB, RegisterConfig, register_tables, ["--config", sys.argv[1], "--local"]))
"""


def started(world: World, name: str) -> subprocess.Popen[bytes]:
    path = world.root / f"{name}.json"
    config = {"root": str(world.tables), "catalog": {"kind": "sqlite", "folder": str(world.root / name)}}
    path.write_text(json.dumps(config))
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def test_of_two_at_once_each_run_lands_once(world: World) -> None:
    both = [started(world, "race") for _ in range(2)]
    for process in both:
        _, log = process.communicate(timeout=300)
        assert process.returncode in (EXIT_DONE, EXIT_NOTHING_TO_DO), log[-3000:]
    code, _ = world.register("race")
    assert code == EXIT_NOTHING_TO_DO
    assert world.rows("labels")[0][0] == 100


def test_killed_at_any_moment_whole_runs_or_none(world: World) -> None:
    """Killed ten seconds to half a minute after its start, and run again: each run is there once."""
    rng = np.random.default_rng(0)
    for delay in rng.uniform(9, 16, 4):
        process = started(world, "killed")
        time.sleep(delay)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert world.register("killed")[0] in (EXIT_DONE, EXIT_NOTHING_TO_DO)
    assert world.rows("labels", what="run_id, count(*)", where="true GROUP BY run_id ORDER BY run_id") == [
        ("l1", 50),
        ("l2", 50),
    ]
