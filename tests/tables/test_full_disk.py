"""A disk that fills up while a job writes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark.sql import SparkSession

from geosieve.images.ingest import IngestConfig, ingest_images
from geosieve.job.main import main
from geosieve.labels.label import LabelConfig, label_attributes

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
    spark: SparkSession, tmp_path: Path, small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = str(tmp_path / "tables")
    _ingest(tmp_path, tables)
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes((4 << 20) - ROOM))
    config = {
        "images": {"root": tables},
        "rasters": {"root": tables},
        "partitions": [{"kind": "s2", "name": f"s2_l{level}", "level": level} for level in (10, 20)],
        "output": str(small_disk),
    }
    capsys.readouterr()
    code, report = _label(tmp_path, config, capsys)
    assert code == 75
    assert report["status"] == "failed"
    assert "the disk is full" in report["error"]
    assert not list(small_disk.rglob("_SUCCESS"))
    ballast.unlink()
    code, report = _label(tmp_path, config, capsys)
    assert (code, report["rows_out"]) == (0, IMAGES)
    assert len(list(small_disk.rglob("_SUCCESS"))) == 4


def _ingest(folder: Path, tables: str) -> None:
    rng = np.random.default_rng(3)
    lat, lon = np.degrees(np.arcsin(rng.uniform(-1, 1, IMAGES))), rng.uniform(-180, 180, IMAGES)
    rows = [f"{n},{a!r},{b!r}" for n, (a, b) in enumerate(zip(lat.tolist(), lon.tolist(), strict=True))]
    (folder / "list.csv").write_text("\n".join(["id,lat,lon", *rows]))
    columns = {"image_id": "id", "lat": "lat", "lon": "lon"}
    source = {"name": "list", "format": "csv", "uri": str(folder / "list.csv"), "columns": columns}
    path = _write(folder / "ingest.yaml", {"source": source, "output": tables})
    assert main("ingest_images", IngestConfig, ingest_images, ["--config", path, "--run-id", "i"]) == 0


def _label(folder: Path, config: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    path = _write(folder / "label.yaml", config)
    code = main("label_attributes", LabelConfig, label_attributes, ["--config", path, "--run-id", "r"])
    return code, json.loads(capsys.readouterr().out.splitlines()[-1])


def _write(path: Path, config: dict[str, Any]) -> str:
    path.write_text(json.dumps(config))
    return str(path)
