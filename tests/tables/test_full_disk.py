"""A disk that fills up while a job writes."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pyspark.sql import SparkSession
from workspace import Workspace

IMAGES = 20_000
ROOM = 200 << 10  # enough for claims and markers, not for the labels


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)  # the session may still hold a file open


def test_a_full_disk_commits_nothing_and_a_rerun_after_freeing_it_does(
    spark: SparkSession, tmp_path: Path, small_disk: Path
) -> None:
    images, full = Workspace(tmp_path), Workspace(tmp_path)
    rng = np.random.default_rng(3)
    images.ingest(np.degrees(np.arcsin(rng.uniform(-1, 1, IMAGES))), rng.uniform(-180, 180, IMAGES))
    full.tables = small_disk
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes((4 << 20) - ROOM))
    cells = [{"kind": "s2", "name": f"s2_l{level}", "level": level} for level in (10, 20)]
    code, report = full.label(cells, root=str(images.tables))
    assert code == 75
    assert report["status"] == "failed"
    assert "the disk is full" in report["error"]
    assert not list(small_disk.rglob("_SUCCESS"))
    ballast.unlink()
    code, report = full.label(cells, root=str(images.tables))
    assert (code, report["rows_out"]) == (0, IMAGES)
    assert len(list(small_disk.rglob("_SUCCESS"))) == 4
