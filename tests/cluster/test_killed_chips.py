"""Executors and drivers are killed while chips and pairs are made: rows are those of an undisturbed run, or none."""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from committed import commit, image
from fabricated_strips import texture, write_strip
from job_client import Died, JobServer, Outcome
from PIL import Image
from pyproj import Transformer
from pyspark.sql import SparkSession
from rasterio.transform import Affine

from geosieve.job.main import main
from geosieve.overhead.pairs.build import build_pairs
from geosieve.overhead.pairs.config import PairsConfig
from geosieve.runtime.errors import EXIT_DONE
from geosieve.runtime.store import StoreFiles
from geosieve.tables.read import find_runs
from geosieve.tables.schema import Table
from geosieve.tables.schemas import CHIPS, IMAGES, PAIRS, REJECTS

POISON = Path(__file__).parent / "poison_chips"
POSITIONS = 60


class Ground:
    """A strip, photos taken there, and drivers whose jobs make chips and pairs of them."""

    def __init__(self, root: Path) -> None:
        self.root, self.armed = root, root / "armed"
        at = Affine(0.5, 0, 5e5, 0, -0.5, 5e6)
        write_strip(root / "in/s.tif", texture(3, 700, 900, "uint8", 255), at, "EPSG:32633")
        rng = np.random.default_rng(0)
        lon, lat = Transformer.from_crs("EPSG:32633", "EPSG:4326", always_xy=True).transform(
            5e5 + rng.uniform(0, 450, POSITIONS), 5e6 - rng.uniform(0, 350, POSITIONS)
        )
        lines, photos = [f"{n},{lat[n]!r},{lon[n]!r}" for n in range(POSITIONS)], []
        (root / "list.csv").write_text("\n".join(["id,lat,lon", *lines]))
        (root / "photos").mkdir()
        for n in range(POSITIONS):
            path = root / f"photos/{n}.jpg"
            Image.new("RGB", (60, 40), (4 * n, 99, 9)).save(path)
            photos.append(image(str(n), lat[n], lon[n], str(path), path.read_bytes()))
        commit(root / "tables", IMAGES, {"source": "list", "run_id": "r"}, photos)
        path = os.pathsep.join([str(POISON), os.environ.get("PYTHONPATH", "")])
        environment = {"PYTHONPATH": path, "ARMED": str(self.armed)}
        self.driver = JobServer(root / "driver", "local[2]")
        self.cluster = JobServer(root / "cluster", "local-cluster[2,1,1024]", environment=environment)
        strips = {"name": "s", "uri": str(root / "in"), "resolution_m": 0.5}
        done(self.driver.run("prepare_strips", {"strips": strips, "output": str(root / "tables")}, "r"))

    def of_chips(self, output: str) -> dict[str, Any]:
        """Configuration of `cut_chips`."""
        columns = {"image_id": "id", "lat": "lat", "lon": "lon"}
        return {
            "name": "set",
            "positions": {"name": "list", "format": "csv", "uri": str(self.root / "list.csv"), "columns": columns},
            "rasters": {"root": str(self.root / "tables"), "strips": ["s"]},
            "views": [{"size_px": 100, "resolution_m": 0.5}],
            "output": str(self.root / output),
        }

    def of_pairs(self, output: str) -> dict[str, Any]:
        """Configuration of `build_pairs`. Photos become smaller, so that each is encoded."""
        return {
            "name": "set",
            "images": {"root": str(self.root / "tables")},
            "chips": {"root": str(self.root / "died"), "name": "set"},
            "licences": "any",
            "longest": 30,
            "output": str(self.root / output),
        }

    def rows(self, output: str, table: Table) -> list[list[dict[str, Any]]]:
        """Of the committed run of a job: of its table, and its rejects."""
        root, found = str(self.root / output), []
        for one in (table, REJECTS):
            files = [f"{run.uri}/{name}" for run in find_runs(StoreFiles(), root, one) for name in run.files]
            found.append(sorted((row for file in files for row in pq.ParquetFile(file).read().to_pylist()), key=repr))
        return found


def done(outcome: Outcome) -> Outcome:
    assert outcome.exit_code == EXIT_DONE, outcome.report["error"]
    return outcome


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    ground = Ground(tmp_path_factory.mktemp("ground"))
    yield ground
    ground.driver.close()
    ground.cluster.close()


@pytest.fixture(scope="module")
def chips(ground: Ground) -> list[list[dict[str, Any]]]:
    """Rows of a run whose driver died before others could see them."""
    with pytest.raises(Died):
        ground.driver.run("cut_chips", ground.of_chips("died"), "r", die_at_mark=2)
    assert ground.rows("died", CHIPS)[0] == []
    again = done(ground.cluster.run("cut_chips", ground.of_chips("died"), "r"))
    assert again.report["rows_out"] == 0  # no chip was cut again: they were committed, and are visible now
    found = ground.rows("died", CHIPS)
    assert len(found[0]) > 20 and len(found[0]) + len(found[1]) == POSITIONS
    return found


def test_a_killed_executor_changes_no_chip(ground: Ground, chips: list[list[dict[str, Any]]]) -> None:
    ground.armed.touch()
    done(ground.cluster.run("cut_chips", ground.of_chips("killed"), "r"))
    assert not ground.armed.exists()  # an executor was killed
    assert ground.rows("killed", CHIPS) == chips


def test_killed_executors_and_drivers_change_no_pair(
    ground: Ground, chips: list[list[dict[str, Any]]], spark: SparkSession
) -> None:
    ground.armed.touch()
    done(ground.cluster.run("build_pairs", ground.of_pairs("pairs"), "r"))
    assert not ground.armed.exists()
    pairs, rejects = found = ground.rows("pairs", PAIRS)
    assert {row["image_id"]: row["chip"] for row in pairs} == {row["image_id"]: row["chip"] for row in chips[0]}
    assert {row["id"]: row["error_class"] for row in rejects} == {row["id"]: "no_chip" for row in chips[1]}
    for row in pairs:
        colour = np.asarray(Image.open(io.BytesIO(row["photo"])), float).mean(axis=(0, 1))
        np.testing.assert_allclose(colour, (4 * int(row["image_id"]), 99, 9), atol=2)
    # The driver dies while another executor is lost. This process goes on.
    ground.armed.touch()
    ground.cluster.start("build_pairs", ground.of_pairs("cut short"), "r")
    end = time.monotonic() + 120
    while ground.armed.exists():
        assert time.monotonic() < end and ground.cluster.process.poll() is None
        time.sleep(0.01)
    ground.cluster.kill()
    assert ground.rows("cut short", PAIRS) == [[], []]
    for output in ("cut short", "undisturbed"):
        config = ground.root / "pairs.yaml"
        config.write_text(json.dumps(ground.of_pairs(output)))
        code = main("build_pairs", PairsConfig, build_pairs, ["--config", str(config), "--run-id", "r"])
        assert code == EXIT_DONE
        assert ground.rows(output, PAIRS) == found
