"""The equal-angle grid: every point in one pixel, every pixel with its area."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geosieve.geo.grid import EqualAngleGrid

GRID_120 = EqualAngleGrid(5400, 10800)
GRIDS = st.builds(EqualAngleGrid, st.integers(1, 7000), st.integers(1, 14000))


@pytest.mark.parametrize(
    ("arcsec", "shape"),
    [
        (120, (5400, 10800)),
        (30, (21600, 43200)),
        (10, (64800, 129600)),
        (0.5, (1296000, 2592000)),
        (648000, (1, 2)),
    ],
)
def test_known_resolutions(arcsec: float, shape: tuple[int, int]) -> None:
    grid = EqualAngleGrid.from_arcsec(arcsec)
    assert (grid.rows, grid.cols) == shape


@pytest.mark.parametrize("arcsec", [7, 120.0001, 0, -30, 1_296_000, math.nan, math.inf])
def test_pixels_that_do_not_divide_the_globe_are_refused(arcsec: float) -> None:
    with pytest.raises(ValueError, match="do not divide 180 degrees"):
        EqualAngleGrid.from_arcsec(arcsec)


@pytest.mark.parametrize("shape", [(0, 10), (10, 0), (-1, -1)])
def test_a_grid_without_pixels_is_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        EqualAngleGrid(*shape)


def test_a_grid_is_a_value() -> None:
    assert EqualAngleGrid.from_arcsec(120) == GRID_120
    assert hash(EqualAngleGrid.from_arcsec(120)) == hash(GRID_120)
    with pytest.raises(dataclasses.FrozenInstanceError):
        GRID_120.rows = 1  # type: ignore[misc]


def test_golden_areas_of_the_120_arcsec_grid() -> None:
    areas = GRID_120.row_areas_km2()
    assert round(areas.sum() * GRID_120.cols) == 510_065_881
    assert areas[2700] == pytest.approx(13.7382, abs=5e-5)
    assert areas[0] == pytest.approx(0.003996, abs=5e-7)
    np.testing.assert_allclose(areas, areas[::-1], rtol=1e-14)


def test_corners_of_the_map() -> None:
    row, col = GRID_120.pixels([90, 90, -90, -90, 0], [-180, 180, -180, 179.9999, 0])
    assert row.tolist() == [0, 0, 5399, 5399, 2700]
    assert col.tolist() == [0, 0, 0, 10799, 5400]
    assert row.dtype == col.dtype == np.int64


def test_180_degrees_is_column_0_however_it_is_written() -> None:
    lon = [180, -180, 540, -540, 180 + 360 * 1000]
    assert GRID_120.pixels(0, lon)[1].tolist() == [0] * 5
    assert GRID_120.pixels(0, [math.nextafter(180, 0), math.nextafter(-180, -181)])[1].tolist() == [10799] * 2


def test_the_smallest_step_off_an_edge_changes_the_pixel() -> None:
    # 90 - 5e-324 is 90: without a comparison with the edge itself the point would be in row 2700.
    row, col = GRID_120.pixels([0, 5e-324, -5e-324], [0, -5e-324, 5e-324])
    assert row.tolist() == [2700, 2699, 2700]
    assert col.tolist() == [5400, 5399, 5400]


def test_whole_degrees_start_a_pixel() -> None:
    lat, lon = np.arange(-89, 91), np.arange(-180, 180)
    np.testing.assert_array_equal(GRID_120.pixels(lat, 0)[0], (90 - lat) * 30)
    np.testing.assert_array_equal(GRID_120.pixels(0, lon)[1], (lon + 180) * 30)


@given(GRIDS, st.floats(-90, 90), st.floats(-180, 180, exclude_max=True))
def test_a_pixel_contains_its_point(grid: EqualAngleGrid, lat: float, lon: float) -> None:
    row, col = (int(k) for k in grid.pixels(lat, lon))
    edges = grid.row_edges()
    assert edges[row] >= lat > edges[row + 1] or (row == grid.rows - 1 and lat == -90)
    assert (2 * col - grid.cols) * 180 / grid.cols <= lon
    assert lon < (2 * (col + 1) - grid.cols) * 180 / grid.cols


@given(GRIDS, st.data())
def test_every_edge_belongs_to_the_pixel_south_or_east_of_it(grid: EqualAngleGrid, data: st.DataObject) -> None:
    row, col = data.draw(st.integers(0, grid.rows - 1)), data.draw(st.integers(0, grid.cols - 1))
    lat, lon = grid.row_edges()[row], (2 * col - grid.cols) * 180 / grid.cols
    assert grid.pixels(lat, lon) == (row, col)
    beside = math.nextafter(lat, 91), math.nextafter(lon, -181)
    expected = (row - 1 if row else None), (col - 1) % grid.cols
    if row:
        assert grid.pixels(*beside) == expected
    assert grid.pixels(lat, beside[1])[1] == expected[1]


@given(GRIDS, st.data())
def test_the_centre_of_a_pixel_is_in_it(grid: EqualAngleGrid, data: st.DataObject) -> None:
    pixel = data.draw(st.integers(0, grid.rows - 1)), data.draw(st.integers(0, grid.cols - 1))
    lat, lon = grid.centres(*pixel)
    assert grid.pixels(lat, lon) == pixel
    edges = grid.row_edges()
    assert lat == pytest.approx((edges[pixel[0]] + edges[pixel[0] + 1]) / 2, abs=1e-13)


def test_centres_of_a_small_grid() -> None:
    lat, lon = EqualAngleGrid(2, 4).centres(np.arange(2)[:, None], np.arange(4))
    np.testing.assert_array_equal(lat, [[45] * 4, [-45] * 4])
    np.testing.assert_array_equal(lon, [[-135, -45, 45, 135]] * 2)


@given(GRIDS)
def test_pixels_tile_the_sphere(grid: EqualAngleGrid) -> None:
    edges = grid.row_edges()
    assert edges[0] == 90 and edges[-1] == -90 and edges.size == grid.rows + 1
    np.testing.assert_array_equal(edges, -edges[::-1])
    assert grid.row_areas_km2().sum() * grid.cols == pytest.approx(4 * math.pi * 6371.0088**2, rel=1e-12)


def test_points_and_pixels_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ValueError, match=r"90\.1 at position 1: a latitude"):
        GRID_120.pixels([0, 90.1], 0)
    with pytest.raises(ValueError, match="nan: a longitude"):
        GRID_120.pixels(0, math.nan)
    with pytest.raises(ValueError, match="5400 at position 1: the grid has rows 0 to 5399"):
        GRID_120.centres([0, 5400], 0)
    with pytest.raises(ValueError, match="-1: the grid has columns 0 to 10799"):
        GRID_120.centres(0, -1)
