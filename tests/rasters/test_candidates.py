"""Files and polygons near a point: none may be missed, whatever the projection, edge or pole."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from pyspark.sql import SparkSession
from shapely.geometry import box

from geosieve.rasters.candidates import CandidateIndex, cell_keys, join_outlines, occupied_cells


def test_spark_and_numpy_agree_on_the_cell_of_every_point(spark: SparkSession) -> None:
    rng = np.random.default_rng(0)
    edges = np.arange(-90, 90.01, 0.25)
    lat = np.concatenate([rng.uniform(-90, 90, 2000), np.nextafter(edges, 90)[:-1], edges])
    lon = np.concatenate([rng.uniform(-180, 180, 2000), np.resize([-180, 180, 179.9999999999], lat.size - 2000)])
    points = spark.createDataFrame(list(zip(lat.tolist(), lon.tolist(), strict=True)), "lat double, lon double")
    np.testing.assert_array_equal(occupied_cells(points), np.unique(cell_keys(lat, lon)))


@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 5)), max_size=60), st.lists(st.integers(0, 25), max_size=40)
)
def test_pairs_are_those_of_a_plain_loop(pairs: list[tuple[int, int]], rows: list[int]) -> None:
    # cells of the first column of the grid: row r is key 1440 r
    cell, item = (np.array([p[i] for p in pairs], np.int64) for i in (0, 1))
    index = CandidateIndex.from_pairs(cell * 1440, item)
    lat, lon = np.array(rows) * 0.25 - 90 + 0.1, np.full(len(rows), -179.9)
    candidates = index.candidates(lat, lon)
    for wanted in range(6):
        expected = [i for i, r in enumerate(rows) if (r, wanted) in pairs]
        assert sorted(candidates.points_of(wanted).tolist()) == expected
    assert list(candidates.items()) == sorted({i for r, i in pairs if r in rows})


@pytest.mark.parametrize("seed", range(3))
def test_the_join_misses_no_outline(spark: SparkSession, seed: int) -> None:
    """Against a loop of shapely over all points and outlines, among them ones at ±180 and the poles."""
    rng = np.random.default_rng(seed)
    west, south = rng.uniform(-180, 170, 40), rng.uniform(-90, 80, 40)
    shapes = [
        box(w, s, min(w + d, 180), min(s + d, 90))
        for w, s, d in zip(west, south, rng.uniform(0.01, 9, 40), strict=True)
    ]
    shapes += [box(-180, -90, 180, -80), box(179.9, -10, 180, 10), box(-180, 40, -179.99, 50)]
    lat = np.concatenate([rng.uniform(-90, 90, 4000), [-90, 90, 0, 45, 45]])
    lon = np.concatenate([rng.uniform(-180, 180, 4000), [0, 0, 180, 180, -180]])
    points = spark.createDataFrame(list(zip(lat.tolist(), lon.tolist(), strict=True)), "lat double, lon double")
    outlines = {"maps": {i: shapely.to_wkb(shape) for i, shape in enumerate(shapes)}, "none": {}}
    indices = join_outlines(spark, occupied_cells(points), outlines)
    candidates = indices["maps"].candidates(lat, lon)
    for number, shape in enumerate(shapes):
        holds = shapely.intersects_xy(shape, lon, lat) | (
            (np.abs(lon) == 180) & shapely.intersects_xy(shape, -lon, lat)
        )
        assert set(np.flatnonzero(holds)) <= set(candidates.points_of(number).tolist())
    assert indices["none"].keys.size == 0
    # and it is an index: most outlines are not near most points
    assert candidates.point.size < 0.1 * lat.size * len(shapes)


def test_dense_cells_have_the_outlines_that_a_loop_finds(spark: SparkSession) -> None:
    """All cells of a part of the world, also those of blocks that no border crosses; a ring has a hole."""
    ring = box(-179, 10, -150, 39).difference(box(-170, 20, -160, 30))
    shapes = [ring, box(-180, -20, -171, 11), box(170, 0, 180, 20), box(-165, 24, -164.9, 24.1), box(0, 0, 9, 9)]
    lat, lon = (axis.ravel() for axis in np.meshgrid(np.arange(-25, 45, 0.25) + 0.1, np.arange(-180, -140, 0.25) + 0.1))
    cells = np.unique(cell_keys(lat, lon))
    index = join_outlines(spark, cells, {"": {i: shapely.to_wkb(shape) for i, shape in enumerate(shapes)}})[""]
    found = index.candidates(lat, lon)
    west, south = np.floor(lon * 4) / 4, np.floor(lat * 4) / 4
    for number, shape in enumerate(shapes):
        boxes = shapely.box(west - 0.02, south - 0.02, west + 0.27, south + 0.27)
        shifted = shapely.box(west + 360 - 0.02, south - 0.02, west + 360.27, south + 0.27)
        near = shapely.intersects(boxes, shape) | ((west == -180) & shapely.intersects(shifted, shape))
        if number != 2:
            np.testing.assert_array_equal(found.points_of(number), np.flatnonzero(near))
        else:  # on the other side of ±180, a whole block may be near what its first column is near
            assert set(np.flatnonzero(near)) <= set(found.points_of(number)) <= set(np.flatnonzero(west < -178))
