"""`atom_cells` against Google's S2 library, pixel by pixel."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from box_partitions import box_partition
from pyspark.sql import SparkSession
from s2_oracle import leaf
from s2geometry import S2Cell, S2CellId, S2LatLng, S2LatLngRect
from workspace import JOBS, Report, Workspace

from geosieve.geo.grid import EqualAngleGrid
from geosieve.overlay import cells as overlay_cells
from geosieve.overlay.cells import JOB, CellsConfig, atom_cells
from geosieve.runtime.errors import EXIT_BAD_INPUT, EXIT_DONE, EXIT_INTERNAL, EXIT_NOTHING_TO_DO

LEVEL, ROWS = 4, 36
GRID = EqualAngleGrid(ROWS, 2 * ROWS)
WIDTH, HEIGHT = 360 / GRID.cols, 180 / GRID.rows


class World(Workspace):
    """An overlay of halves of the Earth and a triangle, on pixels of 5 degrees, some of which are mixed."""

    def __init__(self, root: Path, spark: SparkSession) -> None:
        super().__init__(root)
        self.spark, self.jobs = spark, {**JOBS, JOB: (CellsConfig, atom_cells)}
        halves = box_partition(root, "halves", {"west": (-180, -90, 7, 90), "east": (7, -90, 180, 90)})
        ring = [[100, 10], [140, 12], [131, 47], [100, 10]]
        shape = {"type": "Polygon", "coordinates": [ring]}
        feature = {"type": "Feature", "properties": {"name": "a"}, "geometry": shape}
        (root / "triangle.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
        uri = str(root / "triangle.geojson")
        triangle = {"name": "triangle", "kind": "polygons", "uri": uri, "name_column": "name"}
        tables = {"root": str(self.tables)}
        config = {"name": "world", "rasters": tables, "resolution_arcsec": HEIGHT * 3600}
        code, report = self.run("build_overlay", {**config, "partitions": [halves, triangle]})
        assert code == EXIT_DONE, report["error"]

    def cells(self, run_id: str, *options: str, name: str = "world", level: int = LEVEL) -> Report:
        overlay = {"root": str(self.tables), "name": name}
        return self.run(JOB, {"overlay": overlay, "level": level}, run_id, *options)

    def table(self, name: str, run_id: str = "r1") -> pd.DataFrame:
        return pq.read_table(self.tables / f"{name}/overlay=world/run_id={run_id}", partitioning=None).to_pandas()


@pytest.fixture(scope="module")
def world(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("cells"), spark)


@pytest.fixture(scope="module")
def cells(world: World) -> pd.DataFrame:
    code, report = world.cells("r1")
    assert code == EXIT_DONE, report["error"]
    return world.table("atom_cells")


def pixels(runs: pd.DataFrame) -> pd.DataFrame:
    """One row per pixel and atom: row, column, share."""
    many = runs.loc[runs.index.repeat(runs["length"])].copy()
    many["column"] += many.groupby(level=0).cumcount()
    return many


def signed(cell: S2CellId) -> int:
    return int(cell.id()) - 2**64 * (cell.id() >= 2**63)


def test_every_place_in_a_pixel_of_an_atom_lies_in_a_cell_of_the_atom(world: World, cells: pd.DataFrame) -> None:
    known = {atom: set(of) for atom, of in cells.groupby("atom")["s2_id"]}
    steps = np.linspace(0, 1, 6)  # with edges and corners, where pixels and cells meet
    runs = world.table("overlay_runs")
    assert (runs["share"] < 1).any()
    for pixel in pixels(runs).itertuples():
        norths, wests = 90 - (pixel.row + steps) * HEIGHT, -180 + (pixel.column + steps) * WIDTH
        assert {signed(leaf(lat, lon).parent(LEVEL)) for lat in norths for lon in wests} <= known[pixel.atom]


def test_no_cell_is_far_from_its_atom(world: World, cells: pd.DataFrame) -> None:
    """An eighth of the least width of a cell, at most."""
    slack = S2LatLng.FromDegrees(np.degrees(2 * np.sqrt(2) / 3 / 2**LEVEL / 8), 0).lat()
    boxes = {}
    for row in range(ROWS):
        for column in range(2 * ROWS):
            south, west = 90 - (row + 1) * HEIGHT, -180 + column * WIDTH
            corners = S2LatLng.FromDegrees(south, west), S2LatLng.FromDegrees(south + HEIGHT, west + WIDTH)
            boxes[row, column] = S2LatLngRect(*corners).ExpandedByDistance(slack)
    places: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for pixel in pixels(world.table("overlay_runs")).itertuples():
        places[pixel.atom].append((pixel.row, pixel.column))
    for row in cells.itertuples():
        square = S2Cell(S2CellId(row.s2_id % 2**64))
        assert any(boxes[place].MayIntersect(square) for place in places[row.atom])


def test_shares_are_those_of_many_points_and_sum_to_1(world: World, cells: pd.DataFrame) -> None:
    assert cells.groupby("atom")["share"].sum().to_numpy() == pytest.approx(1.0, abs=1e-12)
    assert cells["share"].min() == 0  # of cells that are only touched
    found: dict[tuple[int, int], float] = defaultdict(float)
    n = 16
    middles = (np.arange(n) + 0.5) / n
    for pixel in pixels(world.table("overlay_runs")).itertuples():
        for lat in 90 - (pixel.row + middles) * HEIGHT:
            for lon in -180 + (pixel.column + middles) * WIDTH:
                found[pixel.atom, signed(leaf(lat, lon).parent(LEVEL))] += pixel.share * np.cos(np.radians(lat))
    total: dict[int, float] = defaultdict(float)
    for (atom, _), area in found.items():
        total[atom] += area
    mine = {(a, c): s for a, c, s in zip(cells["atom"], cells["s2_id"], cells["share"], strict=True)}
    assert found.keys() <= mine.keys()
    for key, share in mine.items():
        assert share == pytest.approx(found.get(key, 0.0) / total[key[0]], rel=0.05, abs=2e-3), key


def test_ranges_hold_the_leaves_of_their_cell_and_no_others(cells: pd.DataFrame) -> None:
    assert (cells["level"] == LEVEL).all()
    for row in cells.drop_duplicates("s2_id").itertuples():
        cell = S2CellId(row.s2_id % 2**64)
        assert cell.level() == LEVEL
        assert (row.first_leaf, row.last_leaf) == (signed(cell.range_min()), signed(cell.range_max()))
    ranges = cells[["first_leaf", "last_leaf"]].drop_duplicates().sort_values("first_leaf")
    assert (ranges["last_leaf"].to_numpy()[:-1] < ranges["first_leaf"].to_numpy()[1:]).all()  # as signed numbers, too


def test_each_pair_occurs_once_with_the_hash_of_the_overlay(world: World, cells: pd.DataFrame) -> None:
    assert not cells.duplicated(["atom", "s2_id"]).any()
    atoms = world.table("overlay_atoms")
    assert set(cells["atom"]) == set(atoms["atom"]) and set(cells["overlay_hash"]) == set(atoms["overlay_hash"])
    assert cells["first_leaf"].is_monotonic_increasing


def test_another_level_a_dry_run_and_a_second_run(world: World, cells: pd.DataFrame) -> None:
    code, report = world.cells("coarse", level=1)
    assert code == EXIT_DONE, report["error"]
    assert world.table("atom_cells", "coarse")["s2_id"].nunique() == 24
    before = sorted(world.tables.rglob("*"))
    assert world.cells("dry", "--dry-run")[1]["status"] == "dry_run"
    assert world.cells("r1")[0] == EXIT_NOTHING_TO_DO
    assert sorted(world.tables.rglob("*")) == before


def test_an_unknown_overlay_and_lost_pixels(world: World) -> None:
    code, report = world.cells("x", name="wurld")
    assert code == EXIT_BAD_INPUT and "world" in report["error"]
    marker = next(world.tables.glob("overlay_runs/overlay=world/run_id=r1/_SUCCESS"))
    whole = marker.read_text()
    manifest = json.loads(whole)
    manifest["files"] = []
    marker.write_text(json.dumps(manifest))
    marker.with_name("._SUCCESS.crc").unlink(missing_ok=True)
    try:
        code, report = world.cells("lost")
        assert code == EXIT_INTERNAL and "has pixels of" in report["error"]
    finally:
        marker.write_text(whole)


def test_few_pixels_at_a_time_give_the_same_cells_and_areas(monkeypatch: pytest.MonkeyPatch) -> None:
    row, column, length = (np.array(of, dtype=np.int32) for of in ([3, 3, 20], [0, 30, 5], [30, 42, 60]))
    share, atom = np.array([1.0, 1.0, 0.5]), np.array([0, 1, 0])
    whole = overlay_cells.cells_of_runs(GRID, 5, row, column, length, share, atom)
    monkeypatch.setattr(overlay_cells, "_RESTS_AT_ONCE", 700)  # less than a pixel may be divided into
    parts = overlay_cells.cells_of_runs(GRID, 5, row, column, length, share, atom)
    assert whole[0].tolist() == parts[0].tolist() and whole[1].tolist() == parts[1].tolist()
    areas = GRID.row_areas_km2()
    exact = [30 * areas[3] + 60 * 0.5 * areas[20], 42 * areas[3]]
    for atoms, _, km2 in (whole, parts):
        assert np.bincount(atoms, km2) == pytest.approx(exact)
