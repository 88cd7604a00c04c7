"""Every point that falls into a pixel is found, and no other: against pyproj and the affine, for all kinds of CRS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.warp
import shapely
from fabricated_rasters import cataloged, write_raster
from pyproj import CRS, Transformer
from rasterio.transform import Affine, from_origin

from geosieve.rasters.candidates import _extents, cell_keys
from geosieve.rasters.catalog import RasterSource, _Refused, catalog_file
from geosieve.rasters.footprint import place
from geosieve.rasters.georeference import PixelGrid
from geosieve.rasters.sampling import pixels, read_pixels

CASES = Path(__file__).parents[3] / "shared" / "data" / "cases"

ROTATED = "+proj=ob_tran +o_proj=longlat +o_lat_p=39.25 +o_lon_p=0 +lon_0=18 +datum=WGS84 +type=crs"  # CORDEX Europe
PARIS = "+proj=longlat +pm=paris +ellps=clrk80ign +type=crs"
FERRO = "+proj=longlat +pm=ferro +ellps=bessel +towgs84=577.326,90.129,463.919,5.137,1.474,5.297,2.4232 +type=crs"
SINUSOIDAL = "+proj=sinu +R=6371007.181 +type=crs"  # MODIS
EQUATOR = 40075016.685578488  # metres around WGS-84


def grid(size: float, west: float, north: float) -> Affine:
    return Affine(size, 0, west, 0, -size, north)


# CRS, affine, columns, rows, and the period of x, by the CRS's definition
RASTERS: dict[str, tuple[str, Affine, int, int, float | None]] = {
    "Fiji, 0.07 degrees": ("EPSG:4326", grid(0.07, 177, -16), 86, 20, 360),
    "UTM 1 west of 180": ("EPSG:32601", grid(1000, 200_000, 8e6), 300, 300, None),
    "UTM 60 east of 180": ("EPSG:32660", grid(1000, 600_000, 8e6), 300, 300, None),
    "north polar quadrant 1": ("EPSG:3413", grid(10_000, 0, 2e6), 200, 200, None),
    "north polar quadrant 2": ("EPSG:3413", grid(10_000, -2e6, 2e6), 200, 200, None),
    "north polar quadrant 3": ("EPSG:3413", grid(10_000, -2e6, 0), 200, 200, None),
    "north polar quadrant 4": ("EPSG:3413", grid(10_000, 0, 0), 200, 200, None),
    "beside the north pole": ("EPSG:3413", grid(10, -2500, -20), 500, 500, None),
    "south polar quadrant": ("EPSG:3031", grid(1000, 0, 2e6), 2000, 2000, None),
    "south pole": ("EPSG:3031", grid(1000, -3_333_500, 3_333_500), 6667, 6667, None),
    "rotated pole": (ROTATED, grid(0.11, -28.405, 21.945), 424, 412, 360),
    "around a rotated pole": (ROTATED, grid(0.1, 100, 90), 500, 50, 360),
    "Paris across 180": (PARIS, grid(0.1, 175, 10), 60, 60, 360),
    "Paris, half of the Earth": (PARIS, grid(1, -180, 60), 200, 90, 360),
    "grads across 180": ("EPSG:4807", grid(0.1, 190, 20), 160, 120, 400),
    "Ferro across 180": (FERRO, grid(0.1, -170, 10), 100, 100, 360),
    "Ferro, hemisphere": (FERRO, grid(0.5, 0, 90), 720, 180, 360),
    "NZGD2000 across 180": ("EPSG:4167", grid(0.1, 165, -30), 200, 200, 360),
    "NZGD2000 below -180": ("EPSG:4167", grid(0.1, -195, -30), 300, 200, 360),
    "NAD27 below -180": ("EPSG:4267", grid(0.1, -185, 60), 200, 200, 360),
    "sinusoidal world": (SINUSOIDAL, grid(50_000, -20_015_109.354, 10_007_554.677), 801, 401, None),
    "sinusoidal tile at the edge": (SINUSOIDAL, grid(4633.127, -5_559_752.598, 8_895_604.157), 240, 240, None),
    "Web Mercator world": ("EPSG:3857", grid(EQUATOR / 512, -EQUATOR / 2, EQUATOR / 2), 512, 512, EQUATOR),
    "Web Mercator across 180": ("EPSG:3857", grid(1000, 19.7e6, -1.8e6), 900, 300, EQUATOR),
    "Pacific Mercator": ("EPSG:3832", grid(10_000, -3e6, 5e6), 900, 900, EQUATOR),
    "-200 to -151": ("EPSG:4326", grid(0.7, -200, 60), 70, 80, 360),
    "380 degrees": ("EPSG:4326", grid(0.5, -190, 80), 760, 300, 360),
    "371 degrees": ("EPSG:4326", grid(0.7, -1, 80), 530, 200, 360),
    "turned": ("EPSG:4326", Affine.translation(175, 10) @ Affine.rotation(30) @ Affine.scale(0.1, -0.1), 100, 100, 360),
    "whole disc of a satellite": ("+proj=geos +h=35785831 +lon_0=-75", grid(20_000, -5.5e6, 5.5e6), 550, 550, None),
    "equal area world": ("+proj=laea +lat_0=0 +lon_0=0", grid(1e5, -1.28e7, 1.28e7), 256, 256, None),
    "Arctic equal area": ("EPSG:3573", grid(25_000, -4.5e6, 4.5e6), 360, 360, None),
}


def directly(
    crs: str, transform: Affine, width: int, height: int, period: float | None, lat: Any, lon: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row, column and whether there is one, by the definition: x and whole periods beside it, into the affine."""
    x, y = Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(lon, lat)
    row, column, inside = (np.full(lat.size, value) for value in (0, 0, False))
    for turn in (0, 1, -1, 2, -2) if period else (0,):
        with np.errstate(invalid="ignore"):
            at_column, at_row = (np.floor(v) for v in ~transform @ (x + turn * (period or 0.0), y))
        new = ~inside & (at_column >= 0) & (at_column < width) & (at_row >= 0) & (at_row < height)
        row[new], column[new] = at_row[new], at_column[new]
        inside |= new
    return row, column, inside


def points_for(crs: str, transform: Affine, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Random points: on the whole Earth, in the raster, close to the poles and to ±180."""
    rng = np.random.default_rng(7)
    column, row = rng.uniform(0, width, 4000), rng.uniform(0, height, 4000)
    x, y = transform @ (column, row)
    lon, lat = Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(x, y)
    on_earth = np.isfinite(lon) & np.isfinite(lat) & (np.abs(lat) <= 90)
    pole = np.repeat([1, -1], 1000) * (90 - 10 ** rng.uniform(-6, 1, 2000))
    beside = np.repeat([1, -1], 500) * (180 - 10 ** rng.uniform(-8, 0, 1000))
    lats = [np.degrees(np.arcsin(rng.uniform(-1, 1, 5000))), lat[on_earth], pole, rng.uniform(-90, 90, 1000)]
    lons = [rng.uniform(-180, 180, 5000), (lon[on_earth] + 180) % 360 - 180, rng.uniform(-180, 180, 2000), beside]
    return np.concatenate(lats), np.concatenate(lons)


@pytest.mark.parametrize("name", RASTERS)
def test_every_point_in_a_pixel_is_found_and_no_other(name: str) -> None:
    crs, transform, width, height, period = RASTERS[name]
    wkt = CRS.from_user_input(crs).to_wkt()
    lat, lon = points_for(crs, transform, width, height)
    row, column, inside = directly(crs, transform, width, height, period, lat, lon)
    found = PixelGrid(wkt, transform, width, height).pixels(lat, lon)
    np.testing.assert_array_equal(found[2], inside)
    np.testing.assert_array_equal(found[0], row)
    np.testing.assert_array_equal(found[1], column)
    assert inside.sum() > 50
    # A footprint holds them all, and so do the cells that the join finds.
    covers, outline = place(wkt, transform, width, height)
    assert not covers
    shapely.prepare(outline)
    assert shapely.intersects_xy(outline, lon[inside], lat[inside]).all()
    cells = np.unique(cell_keys(lat[inside], lon[inside]))
    keys, *extents = _extents(cells, 0.25)
    assert set(keys[shapely.intersects(outline, shapely.box(*extents))]) == set(cells)


WORLDS = {
    "0 to 360": ("EPSG:4326", grid(1, 0, 90), 360, 180),
    "-360 to 0": ("EPSG:4326", grid(1, -360, 90), 360, 180),
    "ERA5": ("EPSG:4326", grid(0.25, -0.125, 90.125), 1440, 721),
    "south-up": ("EPSG:4326", Affine(1, 0, -180, 0, 1, -90), 360, 180),
    "south-up from 0": ("EPSG:4326", Affine(1, 0, 0, 0, 1, -90), 360, 180),
    "east to west": ("EPSG:4326", Affine(-1, 0, 180, 0, -1, 90), 360, 180),
    "0.7 degrees": ("EPSG:4326", grid(0.7, -180, 90), 515, 258),
    "headers that round": ("EPSG:4326", grid(0.008333333333333, -180, 89.99999999999991), 43200, 21600),
    "grads from Paris": ("EPSG:4807", grid(1, -200, 100), 400, 200),
    "Paris": (PARIS, grid(1, -180, 90), 360, 180),
    "rotated pole": (ROTATED, grid(1, -180, 90), 360, 180),
}


@pytest.mark.parametrize("name", WORLDS)
def test_a_global_raster_has_a_pixel_for_every_point(name: str) -> None:
    crs, transform, width, height = WORLDS[name]
    wkt = CRS.from_user_input(crs).to_wkt()
    assert place(wkt, transform, width, height)[0]
    lat, lon = points_for("EPSG:4326", grid(1, -180, 90), 360, 180)
    lat, lon = np.append(lat, [90, -90, 90, -90, 0, 0]), np.append(lon, [0, 0, 180, -180, 180, -180])
    row, _, inside = PixelGrid(wkt, transform, width, height).pixels(lat, lon)
    assert inside.all()
    if crs == "EPSG:4326":
        north, south = (0, height - 1) if transform.e < 0 else (height - 1, 0)
        assert row[-6:-2].tolist() == [north, south, north, south]


@pytest.mark.parametrize(
    ("transform", "width", "height"),
    [
        (grid(1, -180, 90), 359, 180),  # a column is missing
        (grid(1, -180, 89), 360, 179),
        (Affine(1, 0, -180, 0, 1, -90), 360, 179),
        (grid(0.7, -180, 90), 514, 258),  # 359.8 degrees
    ],
)
def test_a_raster_with_a_gap_is_not_global(transform: Affine, width: int, height: int) -> None:
    assert not place(CRS.from_epsg(4326).to_wkt(), transform, width, height)[0]


def test_a_raster_of_its_own_coordinates_across_180(tmp_path: Path) -> None:
    """Each pixel holds row * 1000 + column; points are pixel centres by rasterio."""
    values = np.add.outer(np.arange(40) * 1000, np.arange(60)).astype(np.int32)
    path = write_raster(tmp_path / "own.tif", values, grid(0.07, 178, 3))
    file = cataloged(path).file
    with rasterio.open(path) as dataset:
        rows, columns = (v.ravel() for v in np.indices(values.shape))
        x, y = (np.array(v) for v in dataset.xy(rows, columns))
    row, column, inside = pixels(file, y, (x + 180) % 360 - 180)
    assert inside.all()
    np.testing.assert_array_equal(read_pixels(file, row, column)[0], values.ravel())


@pytest.mark.skipif(not CASES.exists(), reason="../shared/data is not there")
def test_fiji_has_its_values_on_both_sides_of_180() -> None:
    file = cataloged(CASES / "fiji.tif").file
    lon = np.array([-179.5, -178.0, -177.5, 177.5, 179.99, 180.0, -180.0])
    row, column, inside = pixels(file, np.full(7, -16.5), lon)
    assert inside.all()
    assert read_pixels(file, row, column)[0].tolist() == [2, 2, 2, 1, 1, 1, 1]  # the cases' README, gdallocationinfo


def test_the_antipodes_of_switzerland_are_not_in_it() -> None:
    # PROJ's formula carries points of the other half of the Earth onto Swiss coordinates, and does not carry them back.
    transform, wkt = grid(1000, 2.4e6, 1.3e6), CRS.from_epsg(2056).to_wkt()
    lat, lon = np.random.default_rng(0).uniform(-60, -30, 20_000), np.random.default_rng(1).uniform(-180, -165, 20_000)
    *_, naive = directly("EPSG:2056", transform, 500, 300, None, lat, lon)
    assert naive.any()
    assert not PixelGrid(wkt, transform, 500, 300).pixels(lat, lon)[2].any()


@pytest.mark.parametrize(
    ("crs", "transform", "refused"),
    [
        ('ENGCRS["site",EDATUM["d"],CS[Cartesian,2],AXIS["e",east],AXIS["n",north],LENGTHUNIT["metre",1]]',
         grid(1, 0, 10), "unusable_crs"),
        ("EPSG:4978", grid(1, 0, 10), "unusable_crs"),
        ("EPSG:4326", grid(1, 40, 170), "swapped_axes"),
        ("EPSG:4326", grid(1, 600, 50), "bad_bounds"),
        (SINUSOIDAL, grid(46_331, -17_791_208, 5_559_753), "off_earth"),  # MODIS h02v04, which does not exist
    ],
)  # fmt: skip
def test_a_raster_without_a_place_on_the_earth_is_refused(
    tmp_path: Path, crs: str, transform: Affine, refused: str
) -> None:
    path = write_raster(tmp_path / "a.tif", np.ones((24, 24), np.uint8), transform, crs)
    with pytest.raises(_Refused) as told:
        catalog_file(str(path), RasterSource(collection="c", uri=str(path)))
    assert told.value.args[0] == refused


def test_a_raster_in_grads_is_where_rasterio_says(tmp_path: Path) -> None:
    values = np.arange(400, dtype=np.int16).reshape(20, 20)
    path = write_raster(tmp_path / "paris.tif", values, from_origin(0.5, 52, 0.1, 0.1), "EPSG:4807")
    rng = np.random.default_rng(0)
    x, y = rng.uniform(0.5, 2.5, 500), rng.uniform(50, 52, 500)
    lon, lat = (np.array(v) for v in rasterio.warp.transform("EPSG:4807", "EPSG:4326", x.tolist(), y.tolist()))
    file = cataloged(path).file
    row, column, inside = pixels(file, lat, lon)
    with rasterio.open(path) as dataset:
        expected = np.array([v[0] for v in dataset.sample(zip(x, y, strict=True))])
    assert inside.all()
    np.testing.assert_array_equal(read_pixels(file, row, column)[0], expected)
