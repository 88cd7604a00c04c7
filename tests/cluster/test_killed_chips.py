"""Executors and drivers are killed while chips are cut: rows are those of an undisturbed run, or none are seen."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from fabricated_strips import texture, write_strip
from job_client import Died, JobServer
from pyproj import Transformer
from rasterio.transform import Affine

from geosieve.runtime.errors import EXIT_DONE
from geosieve.runtime.store import StoreFiles
from geosieve.tables.read import find_runs
from geosieve.tables.schemas import CHIPS, REJECTS

JOB, POISON = "cut_chips", Path(__file__).parent / "poison_chips"
POSITIONS = 60


def config(root: Path, output: Path) -> dict[str, Any]:
    columns = {"image_id": "id", "lat": "lat", "lon": "lon"}
    return {
        "name": "set",
        "positions": {"name": "list", "format": "csv", "uri": str(root / "list.csv"), "columns": columns},
        "rasters": {"root": str(root / "tables"), "strips": ["s"]},
        "views": [{"size_px": 100, "resolution_m": 0.5}],
        "output": str(output),
    }


def rows(output: Path) -> list[list[dict[str, Any]]]:
    """Of the committed run in both tables."""
    found = []
    for table in (CHIPS, REJECTS):
        files = [f"{run.uri}/{name}" for run in find_runs(StoreFiles(), str(output), table) for name in run.files]
        found.append(sorted((row for file in files for row in pq.ParquetFile(file).read().to_pylist()), key=repr))
    return found


def test_killed_executors_and_drivers_change_no_row(tmp_path: Path) -> None:
    write_strip(
        tmp_path / "in/s.tif", texture(3, 700, 900, "uint8", 255), Affine(0.5, 0, 5e5, 0, -0.5, 5e6), "EPSG:32633"
    )
    rng = np.random.default_rng(0)
    lon, lat = Transformer.from_crs("EPSG:32633", "EPSG:4326", always_xy=True).transform(
        5e5 + rng.uniform(0, 450, POSITIONS), 5e6 - rng.uniform(0, 350, POSITIONS)
    )
    lines = [f"{n},{lat[n]!r},{lon[n]!r}" for n in range(POSITIONS)]
    (tmp_path / "list.csv").write_text("\n".join(["id,lat,lon", *lines]))
    armed = tmp_path / "armed"
    path = os.pathsep.join([str(POISON), os.environ.get("PYTHONPATH", "")])
    environment = {"PYTHONPATH": path, "ARMED": str(armed)}
    driver = JobServer(tmp_path / "driver", "local[2]")
    cluster = JobServer(tmp_path / "cluster", "local-cluster[2,1,1024]", environment=environment)
    try:
        strips = {"name": "s", "uri": str(tmp_path / "in"), "resolution_m": 0.5}
        prepared = driver.run("prepare_strips", {"strips": strips, "output": str(tmp_path / "tables")}, "r")
        assert prepared.exit_code == EXIT_DONE, prepared.report["error"]
        with pytest.raises(Died):
            driver.run(JOB, config(tmp_path, tmp_path / "died"), "r", die_at_mark=2)
        assert rows(tmp_path / "died")[0] == []
        again = cluster.run(JOB, config(tmp_path, tmp_path / "died"), "r")
        assert again.exit_code == EXIT_DONE, again.report["error"]
        assert again.report["rows_out"] == 0  # no chip was cut again: they were committed, and are visible now
        expected = rows(tmp_path / "died")
        assert len(expected[0]) > 20 and len(expected[0]) + len(expected[1]) == POSITIONS
        armed.touch()
        outcome = cluster.run(JOB, config(tmp_path, tmp_path / "killed"), "r")
    finally:
        driver.close()
        cluster.close()
    assert outcome.exit_code == EXIT_DONE, outcome.report["error"]
    assert not armed.exists()  # an executor was killed
    assert rows(tmp_path / "killed") == expected
