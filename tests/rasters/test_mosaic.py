"""What a worker holds of a map of many files, and which of them it looks at."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio
from fabricated_rasters import cataloged, world, write_raster
from given_tables import GivenTables
from pyproj import Transformer
from pyspark.sql import SparkSession
from rasterio.transform import from_origin

from geosieve.geo.codes import OUTSIDE
from geosieve.partitions.base import parse_definition
from geosieve.partitions.mapped import MapAssigner, area_of_pixels, parts_of_files
from geosieve.rasters.candidates import CandidateIndex, cell_keys, every_cell, join_outlines, occupied_cells
from geosieve.rasters.files import CatalogedFile, file_table
from geosieve.rasters.mosaic import VALID, FileColumns, Mosaic

FAR = 2000


def many(tmp_path: Path) -> Mosaic:
    """A tile at (0..4 E, 6..10 N), asked first, and 2,000 files that do not exist."""
    tile = cataloged(
        write_raster(tmp_path / "a.tif", np.arange(16, dtype=np.uint8).reshape(4, 4), from_origin(0, 10, 1, 1))
    )
    others = [
        CatalogedFile(
            replace(tile.file, uri=f"s3a://bucket/collection/{n:06d}.tif", priority=1), tile.footprint, 1.0, 2.0
        )
        for n in range(FAR)
    ]
    return Mosaic.of(file_table([*others, tile]))


def test_a_worker_holds_little_of_each_file(tmp_path: Path) -> None:
    rasters = many(tmp_path)
    assert len(pickle.dumps(rasters.reader)) < 400 * FAR
    held = pickle.loads(pickle.dumps(rasters.reader))
    assert [held.files[n] for n in (0, 1, FAR)] == [rasters.reader.files[n] for n in (0, 1, FAR)]
    tile = rasters.reader.files[0]
    assert (tile.uri, tile.transform) == (str(tmp_path / "a.tif"), (1, 0, 0, 0, -1, 10))
    assert rasters.reader.files[FAR] == replace(tile, uri=f"s3a://bucket/collection/{FAR - 1:06d}.tif", priority=1)


def test_only_files_near_a_point_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = pickle.loads(pickle.dumps(many(tmp_path).reader))
    lat, lon = np.array([9.5, 6.5, 50.0]), np.array([0.5, 3.5, 0.5])
    looked: list[int] = []
    unpack = FileColumns.__getitem__
    monkeypatch.setattr(FileColumns, "__getitem__", lambda self, n: looked.append(n) or unpack(self, n))
    cells = np.unique(cell_keys(lat, lon))
    values, state = reader.values(lat, lon, CandidateIndex.from_pairs(cells, np.zeros_like(cells)).candidates(lat, lon))
    assert values[:2].tolist() == [0, 15]
    assert state.tolist() == [VALID, VALID, OUTSIDE]
    assert looked == [0]


def test_a_global_file_is_asked_in_its_turn_without_an_index(tmp_path: Path) -> None:
    tile = cataloged(write_raster(tmp_path / "a.tif", np.full((4, 4), 251, np.uint8), from_origin(0, 10, 1, 1)))
    everywhere = cataloged(world(tmp_path / "world.tif", 10), priorities=[{"pattern": "*", "priority": 1}])
    rasters = Mosaic.of(file_table([everywhere, tile]))
    lat, lon = np.array([9.5, -50.0]), np.array([0.5, 0.5])
    near = CandidateIndex.from_pairs(cell_keys(lat[:1], lon[:1]), np.array([0])).candidates(lat, lon)
    values, state = rasters.reader.values(lat, lon, near)
    assert values[0] == 251 and 1 <= values[1] < 250
    assert (state == VALID).all()


def test_points_are_found_through_footprints_cells_and_pixels(spark: SparkSession, tmp_path: Path) -> None:
    """Polar quadrants, tiles across ±180 and a datum from Paris in one collection, against pyproj for each point."""
    tiles = [
        ("EPSG:3413", from_origin(0, 2e6, 1e4, 1e4), None),
        ("EPSG:3413", from_origin(-2e6, 2e6, 1e4, 1e4), None),
        ("EPSG:3413", from_origin(-2e6, 0, 1e4, 1e4), None),
        ("EPSG:3413", from_origin(0, 0, 1e4, 1e4), None),
        ("EPSG:32760", from_origin(600_000, 8e6, 1e3, 1e3), None),
        ("EPSG:4326", from_origin(177, -30, 0.07, 0.07), 360.0),
        ("EPSG:4807", from_origin(190, 22, 0.1, 0.1), 400.0),
        ("EPSG:4167", from_origin(-190, -50, 0.1, 0.1), 360.0),
    ]
    values = np.arange(200 * 200, dtype=np.int32).reshape(200, 200)
    files = [
        cataloged(write_raster(tmp_path / f"{n}.tif", values + n * values.size, transform, crs))
        for n, (crs, transform, _) in enumerate(tiles)
    ]
    rng = np.random.default_rng(3)
    lat = np.r_[rng.uniform(-60, 90, 20_000), 90 - 10 ** rng.uniform(-5, 1, 2000), [90.0, -45.0, -45.0]]
    lon = np.r_[(180 + rng.uniform(-15, 15, 20_000) + 180) % 360 - 180, rng.uniform(-180, 180, 2000), [0, 180, -180]]
    expected = np.full(lat.size, np.nan)
    for n, (crs, transform, period) in reversed(list(enumerate(tiles))):  # the first is asked first
        x, y = Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(np.where(lon == 180, -180, lon), lat)
        for turn in (-1, 1, 0) if period else (0,):
            column, row = (np.floor(v) for v in ~transform @ (x + turn * (period or 0), y))
            here = (row >= 0) & (row < 200) & (column >= 0) & (column < 200)
            expected[here] = (n * values.size + row * 200 + column)[here]
    points = spark.createDataFrame(pd.DataFrame({"lat": lat, "lon": lon}))
    rasters = Mosaic.of(file_table(files))
    index = join_outlines(spark, occupied_cells(points), {"map": rasters.outlines()})["map"]
    found, state = pickle.loads(pickle.dumps(rasters.reader)).values(lat, lon, index.candidates(lat, lon))
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(state == VALID, ~np.isnan(expected))
    assert set(np.unique(expected[~np.isnan(expected)] // values.size)) == set(range(len(tiles)))


def test_areas_by_pixels_are_those_of_the_ground(tmp_path: Path) -> None:
    """Pixels of 1 km in UTM, in buckets of scaled values."""
    values = np.full((300, 200), 100, np.int16)
    values[::7, 3] = 900  # 43 pixels, of which 9 are no data
    values[:63, 3][::7] = -1
    utm = from_origin(400_000, 5_500_000, 1000, 1000)
    write_raster(tmp_path / "utm.tif", values, utm, crs="EPSG:32632", nodata=-1)
    with rasterio.open(tmp_path / "utm.tif", "r+") as raster:
        raster.scales, raster.offsets = (0.1,), (5.0,)
    buckets = {"kind": "density", "name": "d", "collection": "c", "names": ["low", "high", "none"], "edges": [90, 99]}
    definition = parse_definition(buckets, "test")
    partition = definition.build(GivenTables([cataloged(tmp_path / "utm.tif")]))
    assigner = partition.assigner()
    assert isinstance(assigner, MapAssigner)
    everywhere = every_cell()
    index = CandidateIndex.from_pairs(everywhere, np.zeros_like(everywhere))
    parts = parts_of_files(assigner.reader.files)
    area = np.sum([area_of_pixels(assigner, index, np.array([False, True, True]), *part) for part in parts], axis=0)
    # UTM's scale is within 4e-4 of 1 here; a sphere's area and an ellipsoid's differ by less than 0.7 %.
    assert area == pytest.approx([0, 43 - 9, 0], rel=0.01)
