"""`export_regions`: shapes that GIS programs read, against the tables, pyproj and boxes drawn by hand."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pyogrio
import pytest
import shapely
from pyproj import Geod
from pyspark.sql import SparkSession
from small_answers import BANDS, SIDES, World

from geosieve.geo.grid import EqualAngleGrid
from geosieve.geo.sphere import EARTH_RADIUS_KM, cell_area_km2
from geosieve.overlay.atoms import Overlay
from geosieve.reporting.shapes import BOX, PIXELS, around, shapes_of
from geosieve.runtime.errors import EXIT_BAD_CONFIG, EXIT_BAD_INPUT, EXIT_DONE

SPHERE = Geod(a=EARTH_RADIUS_KM * 1000, b=EARTH_RADIUS_KM * 1000)
IDS = ['a"<b>.jpg', "b", "c"]


@pytest.fixture(scope="module")
def world(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> World:
    made = World(tmp_path_factory.mktemp("export"), spark)
    rng = np.random.default_rng(0)
    p = [rng.dirichlet(np.ones(n), len(IDS)) for n in (10, 6)]
    made.rank("points", "r1", "s", IDS, p, cut={"by": "regions", "at": 60})
    return made


def read(path: Any) -> tuple[pd.DataFrame, Any]:
    """Columns and shapes of an exported file."""
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        facts = json.loads(table.schema.metadata[b"geo"])
        column = facts["columns"][facts["primary_column"]]
        assert facts["version"] == "1.1.0" and column["encoding"] == "WKB"
        shapes = shapely.from_wkb(np.array(table["geometry"].to_pylist(), dtype=object))
        assert column["bbox"] == shapely.total_bounds(shapes).tolist()
        assert set(shapely.get_type_id(shapes)) == {6}  # as geometry_types says
        return table.drop_columns("geometry").to_pandas(), shapes
    meta, _, wkb, columns = pyogrio.raw.read(path)
    assert meta["crs"] == "EPSG:4326" and meta["geometry_type"] == "MultiPolygon"
    return pd.DataFrame(dict(zip(meta["fields"], columns, strict=True))), shapely.from_wkb(wkb)


@pytest.mark.parametrize("name", ["all.parquet", "all.gpkg", "all.fgb"])
def test_a_file_has_every_region_as_the_tables_have_it(world: World, name: str) -> None:
    code, report = world.export(name, "points", where="true")
    assert code == EXIT_DONE, report["error"]
    rows, shapes = read(world.root / name)
    order = rows.sort_values(["source", "image_id", "rank"]).index
    rows, shapes = rows.loc[order].reset_index(drop=True), shapes[order]
    leaf = world.tables / "ranked_regions/ranking=points/run_id=r1"
    stored = pq.read_table(leaf, partitioning=None).to_pandas().sort_values(["source", "image_id", "rank"])
    stored = stored.reset_index(drop=True)
    assert len(rows) == report["rows_out"] == 180
    names = [name for name in rows if name not in ("shape_km2", "shape_is")]
    pd.testing.assert_frame_equal(rows[names], stored[names], check_dtype=False)
    assert shapely.is_valid(shapes).all() and (rows["shape_is"] == PIXELS).all()
    # An atom is the box that a band and a side share; its pixels are those whose centres it holds.
    for k, atom in enumerate(rows["atom"]):
        band, side = world.overlay.labels[atom]
        west, _, east, _ = SIDES[f"side{side}"]
        _, south, _, north = BANDS[f"band{band}"]
        assert shapely.bounds(shapes[k]).tolist() == [west, south, east, north]
        assert shapes[k].area == pytest.approx((east - west) * (north - south))
    assert rows["shape_km2"].to_numpy() == pytest.approx(rows["area_km2"].to_numpy(), rel=1e-9)


def test_areas_are_those_of_pyproj(world: World) -> None:
    """Geod's edges are great circles; with a vertex at every hundredth of a degree they hug the parallels."""
    code, report = world.export("some.gpkg", "points", images=[{"source": "s", "image_id": IDS[0]}], regions=5)
    assert code == EXIT_DONE, report["error"]
    rows, shapes = read(world.root / "some.gpkg")
    assert rows["rank"].tolist() == [1, 2, 3, 4, 5] and set(rows["image_id"]) == {IDS[0]}
    for shape, area in zip(shapely.segmentize(shapes, 0.01), rows["area_km2"], strict=True):
        assert abs(SPHERE.geometry_area_perimeter(shape)[0]) / 1e6 == pytest.approx(area, rel=1e-6)


def test_joined_regions_are_unions_of_their_atoms(world: World) -> None:
    rng = np.random.default_rng(1)
    p = [rng.dirichlet(np.ones(n), 1) for n in (10, 6)]
    world.rank("coarse", "r1", "s", ["a"], p, least_km2=20e6, cut={"by": "mass", "at": 0.9999999})
    code, report = world.export("coarse.fgb", "coarse", where="regions > 0")
    assert code == EXIT_DONE, report["error"]
    rows, shapes = read(world.root / "coarse.fgb")
    assert len(rows) < 60 and (rows["area_km2"] >= 20e6).all()
    assert rows["shape_km2"].to_numpy() == pytest.approx(rows["area_km2"].to_numpy(), rel=1e-9)
    assert shapely.union_all(shapes).area == pytest.approx(shapes_area := sum(s.area for s in shapes))  # no overlap
    assert shapes_area <= 360 * 180


def test_too_many_unknown_and_senseless_are_refused(world: World) -> None:
    code, report = world.export("no.gpkg", "points", where="true", most_images=2)
    assert code == EXIT_BAD_INPUT and "more than 2 images" in report["error"] and "ask for fewer" in report["error"]
    code, report = world.export("no.gpkg", "points", images=[{"source": "s", "image_id": "d"}])
    assert code == EXIT_BAD_INPUT and "1 images have no answer, e.g. s/d" in report["error"]
    code, report = world.export("no.gpkg", "points", where="lat > 91")
    assert code == EXIT_BAD_INPUT and "no image meets" in report["error"]
    code, report = world.export("no.gpkg", "points", where="nothing > 1")
    assert code == EXIT_BAD_CONFIG and "nothing" in report["error"]
    code, report = world.export("no.gpkg", "points", where="regions >")
    assert code == EXIT_BAD_CONFIG
    code, report = world.export("no.shp", "points", where="true")
    assert code == EXIT_BAD_CONFIG
    code, report = world.export("no.gpkg", "points", "--dry-run", where="true")
    assert code == EXIT_DONE and report["status"] == "dry_run"
    assert not (world.root / "no.gpkg").exists()


def test_shared_pixels_go_to_the_largest_share_and_small_atoms_become_boxes(spark: SparkSession) -> None:
    """Four pixels by hand on a grid of 10°: atom 0 has two whole ones at ±180 and the larger half of a shared one."""
    grid = EqualAngleGrid(18, 36)
    pixel = float(grid.row_areas_km2()[8])
    rows = [(8, 0, 1, 1.0, 0), (8, 35, 1, 1.0, 0), (8, 1, 1, 0.6, 0), (8, 1, 1, 0.39, 1), (8, 1, 1, 0.01, 2),
            (8, 2, 2, 1.0, 1)]  # fmt: skip
    schema = "row int, column int, length int, share double, atom bigint"
    runs = spark.createDataFrame(rows, schema).selectExpr("*", "'d' AS overlay_hash")
    area = np.array([2.6, 2.39, 0.01]) * pixel
    lat, lon = np.full(3, 5.0), np.array([-175.0, -155.0, -179.99])
    overlay = Overlay((), np.empty((3, 0), np.int64), area, lat, lon, np.full(3, np.nan), "d")
    published: Any = SimpleNamespace(runs=runs, digest="d", grid=grid)
    found = shapes_of(published, overlay, np.arange(3), np.arange(3))
    assert found[0].geometry.equals(shapely.union_all([shapely.box(170, 0, 180, 10), shapely.box(-180, 0, -160, 10)]))
    assert found[1].geometry.equals(shapely.box(-160, 0, -140, 10))
    assert [found[k].made_of for k in range(3)] == [PIXELS, PIXELS, BOX]
    assert found[0].area_km2 == pytest.approx(3 * pixel) and found[2].area_km2 == pytest.approx(0.01 * pixel, rel=1e-9)
    west, south, east, north = found[2].geometry.bounds
    assert (west, east) == (-180, 180) and len(found[2].geometry.geoms) == 2 and south < 5 < north


@pytest.mark.parametrize("lat", [0.0, 60.0, 89.9, -90.0])
@pytest.mark.parametrize("area", [1e-4, 1.0, 1e4, 1e7])
def test_boxes_have_the_area_that_is_asked(lat: float, area: float) -> None:
    shape = around(lat, 179.9999, area)
    told = sum(float(cell_area_km2(s, n, e - w)) for w, s, e, n in (part.bounds for part in shape.geoms))
    assert told == pytest.approx(area, rel=1e-6) and shapely.is_valid(shape)
    assert shape.bounds[0] >= -180 and shape.bounds[2] <= 180 and abs(shape.bounds[1]) <= 90
