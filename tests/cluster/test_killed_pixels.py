"""Jobs that read photographs while an executor or the driver is killed: rows equal those of an undisturbed run."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from fabricated_archives import tar_of, zip_of
from fabricated_images import image
from fabricated_world import rows_fingerprint
from job_client import Died, JobServer

POISON = Path(__file__).parent / "poison"
PHOTOS = 60


def make_archives(folder: Path) -> None:
    """A zip, a tar and a compressed tar of 20 photos each. One in each asks for the death of its executor."""
    folder.mkdir()

    def photo(number: int) -> bytes:
        gps = {1: "N", 2: (number % 60, 1.5, 0.0), 3: "E", 4: (number * 2, 0.25, 0.0)}
        content = image(gps=gps, size=(90 + number, 70), color=(4 * number, 99, 7))
        return content + b"EXECUTOR" if number % 20 == 10 else content

    packers = {"a.zip": zip_of, "b.tar": tar_of, "c.tar.gz": lambda files: gzip.compress(tar_of(files))}
    for k, (name, packed) in enumerate(packers.items()):
        photos = {f"{number}.jpg": photo(number) for number in range(20 * k, 20 * k + 20)}
        (folder / name).write_bytes(packed({**photos, "cut.jpg": photo(1)[:-20]}))


def configurations(archives: Path, tables: str, output: str) -> dict[str, dict[str, Any]]:
    """Of the jobs from archives to training shards. All but the last write to `tables`, that one to `output`."""
    root = {"root": tables}
    splits = [{"name": "test", "share": 0.3}, {"name": "train", "share": 0.7}]
    return {
        "ingest_images": {"source": {"name": "scans", "uri": str(archives), "format": "photos"}, "output": tables},
        "label_attributes": {
            "images": root,
            "rasters": root,
            "partitions": [{"kind": "s2", "name": "cells", "level": 3}],
            "output": tables,
        },
        "build_splits": {
            "name": "by_image",
            "seed": 1,
            "images": root,
            "groups": [],
            "draw": "image",
            "splits": splits,
            "output": tables,
        },
        "prepare_training_set": {
            "name": "small",
            "seed": 3,
            "images": root,
            "labels": {**root, "partitions": ["cells"]},
            "splits": {**root, "name": "by_image"},
            "side": 32,
            "rows_per_file": 5,
            "ranks": 1,
            "output": output,
        },
    }


def rows(root: Path, table: str) -> list[dict[str, Any]]:
    return pq.read_table(root / table, partitioning=None).to_pylist()


def fingerprints(tables: Path, output: Path) -> list[str]:
    """Of the images and rejects that were ingested, and of the training shards with their files."""
    shards = rows(output, "training_shards")
    assert len(rows(tables, "images")) == len(shards) == PHOTOS
    assert [row["error_class"] for row in rows(tables, "rejects")] == ["truncated"] * 3
    return [rows_fingerprint(found) for found in (rows(tables, "images"), rows(tables, "rejects"), shards)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pixels")
    make_archives(root / "archives")
    return root


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[JobServer]:
    server = JobServer(root / "server", "local[2]")
    yield server
    server.close()


@pytest.fixture(scope="module")
def undisturbed(root: Path, server: JobServer) -> list[str]:
    tables = root / "tables"
    for job, config in configurations(root / "archives", str(tables), str(root / "shards")).items():
        outcome = server.run(job, config, "r")
        assert outcome.exit_code == 0, outcome.report["error"]
    return fingerprints(tables, root / "shards")


def test_an_executor_killed_while_it_decodes_changes_no_row(
    root: Path, server: JobServer, undisturbed: list[str]
) -> None:
    armed, tables, output = root / "armed", root / "killed", root / "killed-shards"
    environment = {"PYTHONPATH": str(POISON), "ARMED": str(armed)}
    cluster = JobServer(root / "killed-server", "local-cluster[2,1,1024]", environment=environment)
    try:
        for job, config in configurations(root / "archives", str(tables), str(output)).items():
            decodes = job in ("ingest_images", "prepare_training_set")
            if decodes:
                armed.touch()
            outcome = (cluster if decodes else server).run(job, config, "r")
            assert outcome.exit_code == 0, outcome.report["error"]
            assert not (decodes and armed.exists())  # an executor was killed
    finally:
        cluster.close()
    assert fingerprints(tables, output) == undisturbed


def test_a_driver_killed_while_it_commits_is_made_good_by_a_rerun(
    root: Path, server: JobServer, undisturbed: list[str]
) -> None:
    output = root / "rerun-shards"
    config = configurations(root / "archives", str(root / "tables"), str(output))["prepare_training_set"]
    driver = JobServer(root / "first-server", "local[2]")
    with pytest.raises(Died):
        driver.run("prepare_training_set", config, "r", die_at_mark=1)
    assert not list(output.glob("*/**/_SUCCESS"))
    outcome = server.run("prepare_training_set", config, "r")
    assert outcome.exit_code == 0, outcome.report["error"]
    assert fingerprints(root / "tables", output) == undisturbed
