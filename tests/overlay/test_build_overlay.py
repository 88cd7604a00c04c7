"""`build_overlay` end to end, against every pixel asked one by one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest
from fabricated_rasters import cataloged, world, write_raster
from pyspark.sql import SparkSession
from rasterio.transform import from_origin
from s2_oracle import area_km2, leaf
from s2geometry import S2CellId
from workspace import Report, Workspace

from geosieve.geo import s2
from geosieve.geo.codes import NODATA, OUTSIDE
from geosieve.geo.grid import EqualAngleGrid
from geosieve.overlay.read import OverlayInput, PublishedOverlay, read_published

EARTH_KM2 = 510_065_881  # at R = 6371.0088 km
CELLS = {"name": "cells", "kind": "s2", "level": 3}


class Overlays(Workspace):
    """Builds overlays and reads them."""

    def __init__(self, root: Path, spark: SparkSession) -> None:
        super().__init__(root)
        self.spark = spark

    def build(self, run_id: str = "r", **config: Any) -> Report:
        whole = {"name": "small", "rasters": {"root": str(self.tables)}, "resolution_arcsec": 7200, **config}
        return self.run("build_overlay", whole, run_id)

    def read(self, run_id: str = "r", name: str = "small") -> PublishedOverlay:
        return read_published(self.spark, OverlayInput(root=str(self.tables), name=name, run=run_id))


@pytest.fixture
def workspace(tmp_path: Path, spark: SparkSession) -> Overlays:
    workspace = Overlays(tmp_path, spark)
    workspace.catalog("map", world(tmp_path / "map.tif", 2.0, seed=1, high=6, nodata=2))
    return workspace


def classes(name: str = "classes", collection: str = "map", values: range = range(1, 6)) -> dict[str, Any]:
    named = [{"name": f"c{v}", "values": [v]} for v in values]
    return {"name": name, "kind": "classes", "collection": collection, "classes": named}


def pixel_by_pixel(path: Path) -> pd.DataFrame:
    """Every pixel of the 2 degree grid: labels asked of s2geometry and of the raster's array, and its area."""
    import rasterio

    with rasterio.open(path) as dataset:
        values = dataset.read(1).astype(int)
    grid = EqualAngleGrid(90, 180)
    row, column = (part.ravel() for part in np.indices((90, 180)))
    lat, lon = grid.centres(row, column)
    cells = []
    for a, b in zip(lat, lon, strict=True):
        cells.append(leaf(a, b).parent(3).id() >> (2 * 27 + 1))  # position among the cells of level 3
    label = np.where(values == 2, NODATA, values - 1)[row, column]
    edges = np.radians(90 - 2.0 * np.arange(91))
    area = 6371.0088**2 * np.radians(2.0) * (np.sin(edges[:-1]) - np.sin(edges[1:]))
    return pd.DataFrame({"cells": cells, "classes": label, "area": area[row], "lat": lat, "lon": lon})


def test_atoms_are_the_pixels_that_no_partition_tells_apart(workspace: Overlays, tmp_path: Path) -> None:
    code, report = workspace.build(partitions=[CELLS, classes()])
    assert code == 0
    pixels = pixel_by_pixel(tmp_path / "map.tif")
    expected = pixels.groupby(["cells", "classes"]).agg(pixels=("area", "size"), area=("area", "sum")).reset_index()
    published = workspace.read()
    atoms = published.atoms
    assert report["rows_out"] == len(atoms)
    assert atoms["atom"].tolist() == list(range(len(atoms)))
    # Borders cross pixels, so that there are a few atoms more, and areas differ by parts of pixels.
    both = expected.merge(atoms, on=["cells", "classes"], how="left")
    assert both["atom"].notna().all()
    assert len(expected) <= len(atoms) < 1.1 * len(expected)
    assert (both["area_km2"] - both["area"]).abs().mean() < 0.1 * both["area"].mean()
    cells = atoms.groupby("cells")["area_km2"].sum()
    for cell in range(384):
        assert cells[cell] == pytest.approx(area_km2(S2CellId((2 * cell + 1) << (2 * 27))), rel=1e-9)
    assert atoms["area_km2"].sum() == pytest.approx(4 * np.pi * 6371.0088**2, rel=1e-9)
    assert atoms["area_km2"].sum() == pytest.approx(EARTH_KM2, abs=1)

    runs = published.runs.toPandas()
    assert (runs["length"] * runs["share"]).sum() == pytest.approx(90 * 180)
    assert set(runs["overlay_hash"]) == {report["details"]["overlay_hash"]} == set(atoms["overlay_hash"])
    overlay = published.overlay()
    assert overlay.digest == published.atom_grid().digest == report["details"]["overlay_hash"]
    at, unseen = overlay.atoms_of(pixels[["cells", "classes"]])
    assert unseen == 0
    assert published.labels[at].tolist() == pixels[["cells", "classes"]].to_numpy().tolist()


def test_centroids_and_boxes_hold_across_the_antimeridian_and_at_the_poles(workspace: Overlays, tmp_path: Path) -> None:
    # 0: a block across ±180; 1: all of the northern rows; 2: the rest
    values = np.full((90, 180), 3, np.uint8)
    values[40:50, :5] = values[40:50, -5:] = 1
    values[:3] = 2
    write_raster(tmp_path / "shapes.tif", values, from_origin(-180, 90, 2, 2))
    workspace.catalog("shapes", tmp_path / "shapes.tif")
    assert workspace.build(partitions=[classes("shapes", "shapes", range(1, 4))])[0] == 0
    across, cap, _ = workspace.read().atoms.to_dict("records")
    assert (across["south"], across["west"], across["north"], across["east"]) == (-10, 170, 10, -170)
    assert across["lat"] == pytest.approx(0, abs=1e-6)
    assert abs(across["lon"]) == pytest.approx(180, abs=1e-6)
    assert (cap["south"], cap["west"], cap["north"], cap["east"]) == (84, -180, 90, 180)
    assert cap["lat"] == pytest.approx(90, abs=1e-4)
    assert cap["area_km2"] == pytest.approx(2 * np.pi * 6371.0088**2 * (1 - np.sin(np.radians(84))), rel=1e-9)


def test_overlays_of_one_run_id_keep_their_partitions(workspace: Overlays) -> None:
    for name, level in (("coarse", 2), ("fine", 3)):
        assert workspace.build("dag", partitions=[{**CELLS, "level": level}], name=name)[0] == 0
    for name, regions in (("coarse", 96), ("fine", 384)):
        (partition,) = workspace.read("dag", name).overlay().partitions
        assert partition.n_regions == regions


def test_the_number_of_tasks_changes_nothing(workspace: Overlays) -> None:
    # 720 rows in bands of 173: sums over several tasks.
    fine = {"partitions": [CELLS, classes()], "resolution_arcsec": 900}
    assert workspace.build("a", **fine)[0] == 0
    before = workspace.spark.conf.get("spark.sql.shuffle.partitions")
    workspace.spark.conf.set("spark.sql.shuffle.partitions", "7")
    try:
        assert workspace.build("b", **fine)[0] == 0
    finally:
        workspace.spark.conf.set("spark.sql.shuffle.partitions", before)
    a, b = (workspace.read(run).atoms.drop(columns=["overlay", "run_id"]) for run in "ab")
    pd.testing.assert_frame_equal(a, b, check_exact=True)


def test_a_finer_map_is_reduced_by_majority(workspace: Overlays, tmp_path: Path) -> None:
    fine = world(tmp_path / "fine.tif", 0.5, seed=3, high=4)
    workspace.catalog("fine", fine)
    config = {"partitions": [classes("fine", "fine", range(1, 4))], "reduce": {"fine": 4}}
    assert workspace.build(**config)[0] == 0
    import rasterio

    with rasterio.open(fine) as dataset:
        values = dataset.read(1).astype(int) - 1
    parts = values.reshape(90, 4, 180, 4).transpose(0, 2, 1, 3).reshape(-1, 16)
    majority = [np.bincount(part, minlength=3).argmax() for part in parts]
    assert workspace.read().atoms["pixels"].tolist() == np.bincount(majority, minlength=3).tolist()


def test_land_is_where_the_map_of_land_has_a_region(workspace: Overlays, tmp_path: Path) -> None:
    assert workspace.build(partitions=[CELLS], land=classes("land"))[0] == 0
    # By 16 x 16 points in each pixel; those of the overlay are 4 x 4 in pixels that a border crosses.
    land = pixel_by_pixel(tmp_path / "map.tif")["classes"].to_numpy().reshape(90, 180) >= 0
    lat, lon = (part.ravel() for part in EqualAngleGrid(1440, 2880).centres(*np.indices((1440, 2880))))
    cell = (s2.cell_ids(lat, lon).view(np.uint64) >> np.uint64(2 * 27 + 1)).astype(np.int64)
    weight = np.cos(np.radians(lat))
    on_land = np.kron(land, np.ones((16, 16), bool)).ravel()
    expected = np.bincount(cell, weight * on_land, 384) / np.bincount(cell, weight, 384)
    found = workspace.read().atoms["land_share"].to_numpy()
    assert expected.std() > 0.05  # cells differ by far more than the tolerance
    assert found == pytest.approx(expected, abs=0.01)


def test_regions_of_a_map_that_the_grid_misses_are_told_with_their_area(workspace: Overlays, tmp_path: Path) -> None:
    """The centre of a pixel of 2 degrees is the upper left corner of one of the map's four pixels in it."""
    values = np.ones((180, 360), np.uint8)
    values[10, [20, 22]] = 3  # town: (79.5, -159.5), (79.5, -157.5)
    values[88, 100] = 4  # port: (1.5, -79.5)
    values[0, 0] = 5  # ice, at the pole
    west, east = values[:, :180], values[:, 180:].copy()
    folder = tmp_path / "maps"
    folder.mkdir()
    write_raster(folder / "a.tif", west, from_origin(-180, 90, 1, 1))
    write_raster(folder / "b.tif", east, from_origin(0, 90, 1, 1))
    # Asked last: its towns lie below the others' pixels, save for those that stand for no data.
    write_raster(folder / "c.tif", np.full((10, 10), 3, np.uint8), from_origin(-170, 20, 1, 1))
    workspace.catalog("towns", folder)
    named = [(1, "land"), (3, "town"), (4, "port"), (5, "ice"), (6, "moon")]
    towns = {"name": "towns", "kind": "classes", "collection": "towns"}
    towns["classes"] = [{"name": name, "values": [value]} for value, name in named]  # type: ignore[assignment]
    code, report = workspace.build(partitions=[towns, CELLS])
    assert code == 0, report["error"]
    lost, nowhere = report["warnings"]

    def strip(south: float, north: float) -> float:
        """Area of a pixel of one degree between two latitudes: R² (sin north - sin south) dlon."""
        return 6371.0088**2 * np.radians(1) * float(np.sin(np.radians(north)) - np.sin(np.radians(south)))

    area = 2 * strip(79, 80) + strip(1, 2) + strip(89, 90)
    assert f"region 1 (town), region 2 (port), region 3 (ice): 3 regions of {area:.6g} km² in all are lost" in lost
    assert "no pixel of its map has region 4 (moon): 1 regions are nowhere" in nowhere


def test_polygons_and_maps_of_a_part_of_the_earth_leave_the_rest_outside(workspace: Overlays, tmp_path: Path) -> None:
    shape = {"type": "Polygon", "coordinates": [[[0, 0], [40, 0], [40, 30], [0, 30], [0, 0]]]}
    feature = {"type": "Feature", "properties": {"name": "box"}, "geometry": shape}
    path = tmp_path / "box.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    box = {"name": "box", "kind": "polygons", "uri": str(path), "name_column": "name"}
    assert workspace.build(partitions=[box])[0] == 0
    atoms = workspace.read().atoms
    assert atoms["box"].tolist() == [OUTSIDE, 0]
    strip = np.radians(40) * np.sin(np.radians(30)) * 6371.0088**2
    assert atoms["area_km2"][1] == pytest.approx(strip, rel=1e-9)


def test_engines_read_the_atoms(workspace: Overlays) -> None:
    assert workspace.build(partitions=[CELLS, classes()])[0] == 0
    query = f"SELECT sum(area_km2), count(*) FROM '{workspace.tables}/overlay_atoms/overlay=small/*/*.parquet'"
    area, rows = duckdb.sql(query).fetchall()[0]
    assert area == pytest.approx(EARTH_KM2, abs=1)
    assert rows == len(workspace.read().atoms)


@pytest.mark.parametrize(
    ("config", "code", "says"),
    [
        ({"partitions": [CELLS], "resolution_arcsec": 7}, 78, "do not divide 180 degrees"),
        ({"partitions": [CELLS], "reduce": {"classes": 2}}, 78, "names ['classes'] are no partitions"),
        ({"partitions": [CELLS], "reduce": {"cells": 2}}, 78, "reduce: cells is no map"),
        ({"partitions": [{**CELLS, "level": 13}]}, 78, "fewer than 2^28"),
        ({"partitions": [{**CELLS, "name": "area_km2"}]}, 78, "already has a column 'area_km2'"),
        ({"partitions": [CELLS, CELLS]}, 78, "a name stands twice"),
        ({"partitions": [CELLS], "land": {**CELLS, "level": 1}}, 78, "give it a name of its own"),
    ],
)
def test_what_cannot_be_overlaid_is_refused(workspace: Overlays, config: dict[str, Any], code: int, says: str) -> None:
    found, report = workspace.build(**config)
    assert found == code
    assert says in report["error"]


def test_fabricated_rasters_are_cataloged_as_global(tmp_path: Path) -> None:
    # The tests above rely on maps that cover the Earth.
    assert cataloged(world(tmp_path / "map.tif", 2.0)).file.is_global
