"""A footprint must hold every point that the raster's pixels hold."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from pyproj import CRS, Transformer
from rasterio.transform import Affine
from shapely.geometry import MultiPolygon, Point, box

from geosieve.rasters.footprint import footprint


def wkt(code: str) -> str:
    return CRS.from_user_input(code).to_wkt()


def test_a_utm_tile_bulges_beyond_the_rectangle_of_its_corners() -> None:
    # 100 km wide and 900 km high, at the zone's edge: its straight sides are curves in longitude and latitude.
    transform = Affine(1000, 0, 200_000, 0, -1000, 6_900_000)
    outline = footprint(wkt("EPSG:32633"), transform, 600, 900)
    to_wgs84 = Transformer.from_crs("EPSG:32633", "EPSG:4326", always_xy=True)
    rng = np.random.default_rng(0)
    x, y = 200_000 + rng.uniform(0, 600_000, 4000), 6_900_000 - rng.uniform(0, 900_000, 4000)
    lon, lat = to_wgs84.transform(x, y)
    assert shapely.intersects_xy(outline.buffer(1e-3), lon, lat).all()
    corners = [(200_000, 6_900_000), (800_000, 6_900_000), (800_000, 6_000_000), (200_000, 6_000_000)]
    four = shapely.Polygon([to_wgs84.transform(*corner) for corner in corners])
    assert not shapely.intersects_xy(four.buffer(1e-3), lon, lat).all()  # what densifying is for


def test_a_tile_across_the_antimeridian_is_cut_in_two() -> None:
    transform = Affine(1000, 0, 200_000, 0, -1000, 8_000_000)  # UTM zone 1 begins at -180
    outline = footprint(wkt("EPSG:32601"), transform, 300, 300)
    assert isinstance(outline, MultiPolygon)
    west, _, east, _ = outline.bounds
    assert (west, east) == (-180.0, 180.0)
    assert not outline.contains(Point(0, 72))
    assert outline.area < 100  # and not a band around the Earth


def test_a_polar_raster_holds_the_pole_and_every_longitude() -> None:
    transform = Affine(10_000, 0, -2_000_000, 0, -10_000, 2_000_000)
    outline = footprint(wkt("EPSG:3413"), transform, 400, 400)
    assert outline.bounds[0] == -180 and outline.bounds[2] == 180 and outline.bounds[3] == 90
    assert all(outline.intersects(Point(lon, 85)) for lon in range(-180, 181, 10))
    assert not outline.intersects(Point(0, 50))


def test_a_south_polar_raster_reaches_minus_90() -> None:
    transform = Affine(10_000, 0, -2_000_000, 0, -10_000, 2_000_000)
    outline = footprint(wkt("EPSG:3031"), transform, 400, 400)
    assert outline.bounds[1] == -90 and outline.bounds[3] < 0


@pytest.mark.parametrize("west", [0.0, 170.0, -190.0])
def test_longitudes_beyond_180_are_wrapped(west: float) -> None:
    outline = footprint(wkt("EPSG:4326"), Affine(1, 0, west, 0, -1, 10), 20, 20)
    assert outline.area == pytest.approx(400)
    for lon in np.arange(west + 0.5, west + 20):
        assert outline.contains(Point((lon + 180) % 360 - 180, 0.5))


def test_a_grid_from_0_to_360_covers_the_world() -> None:
    outline = footprint(wkt("EPSG:4326"), Affine(1, 0, 0, 0, -1, 90), 360, 180)
    assert outline.symmetric_difference(box(-180, -90, 180, 90)).area < 1e-9
