"""A label is the value of the pixel that holds the point, whatever the layout, CRS and nodata convention."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from fabricated_rasters import cataloged, world, write_raster
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyproj import Transformer
from rasterio._env import get_gdal_config
from rasterio.transform import Affine, from_origin

from geosieve.rasters import sampling
from geosieve.rasters.paths import gdal_path
from geosieve.rasters.sampling import gdal_environment, pixels, read_pixels
from geosieve.runtime.errors import InputError

TILED = {"tiled": True, "blockxsize": 64, "blockysize": 32}
STRIPS = {"blockysize": 1}


def at(path: Path, lat: Any, lon: Any, **source: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    file = cataloged(path, **source).file
    row, column, inside = pixels(file, np.array(lat, float), np.array(lon, float))
    values, valid = read_pixels(file, row, column)
    return values, valid, inside


def brute_force(path: Path, lat: np.ndarray, lon: np.ndarray) -> np.ndarray:
    """Every point by itself, by rasterio alone."""
    with rasterio.open(path) as dataset:
        return np.array([value[0] for value in dataset.sample(zip(lon, lat, strict=True))])


@pytest.mark.parametrize("layout", [TILED, STRIPS, {"blockysize": 7}], ids=["tiles", "strips", "thick strips"])
@pytest.mark.parametrize("read_pixels_at_once", [1, 5_000, 1 << 22])
def test_values_equal_rasterio_point_by_point(
    tmp_path: Path, layout: dict[str, Any], read_pixels_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "_READ_PIXELS", read_pixels_at_once)
    path = world(tmp_path / "world.tif", 0.9, **layout)
    rng = np.random.default_rng(1)
    lat, lon = rng.uniform(-90, 90, 3000), rng.uniform(-180, 180, 3000)
    values, valid, inside = at(path, lat, lon)
    assert inside.all() and valid.all()
    np.testing.assert_array_equal(values, brute_force(path, lat, lon))


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 300), tall=st.sampled_from([1, 16, 48]))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_block_is_read_once(tmp_path: Path, seed: int, n: int, tall: int) -> None:
    layout = {"blockysize": 1} if tall == 1 else {"tiled": True, "blockxsize": 32, "blockysize": tall}
    file = cataloged(world(tmp_path / f"{tall}.tif", 1.5, **layout)).file
    rng = np.random.default_rng(seed)
    row, column = rng.integers(0, file.height, n), rng.integers(0, file.width, n)
    seen = np.zeros(n, int)
    blocks: set[tuple[int, int]] = set()
    for window, members in sampling._windows(file, row, column):
        seen[members] += 1
        here = {
            (r, c)
            for r in range(window.row_off // tall, -(-(window.row_off + window.height) // tall))
            for c in range(window.col_off // file.block_width, -(-(window.col_off + window.width) // file.block_width))
        }
        assert not here & blocks
        blocks |= here
        assert (row[members] >= window.row_off).all() and (row[members] < window.row_off + window.height).all()
        assert (column[members] >= window.col_off).all() and (column[members] < window.col_off + window.width).all()
    assert (seen == 1).all()
    assert blocks == set(zip((row // tall).tolist(), (column // file.block_width).tolist(), strict=True))


def test_gdal_keeps_64_megabytes_of_decoded_blocks() -> None:
    # rasterio takes bytes, where GDAL's own option is in megabytes.
    with gdal_environment():
        assert get_gdal_config("GDAL_CACHEMAX") == 64 * 1024 * 1024


def test_a_pixel_holds_its_upper_and_left_edge_and_not_the_others(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "four.tif", np.array([[1, 2], [3, 4]], np.uint8), from_origin(10, 50, 1, 1))
    values, _, inside = at(path, [50, 49, 49.5, 49, 48, 49.5, 50.1], [10, 11, 10.5, 10, 10.5, 12, 10.5])
    assert inside.tolist() == [True, True, True, True, False, False, False]
    assert values[:4].tolist() == [1, 4, 1, 3]


def test_longitude_180_is_the_first_column_and_the_poles_are_inside(tmp_path: Path) -> None:
    path = world(tmp_path / "world.tif")
    values, _, inside = at(path, [10.5, 10.5, 90, -90], [180, -180, 0.5, 0.5])
    with rasterio.open(path) as dataset:
        grid = dataset.read(1)
    assert inside.all()
    assert values.tolist() == [grid[79, 0], grid[79, 0], grid[0, 180], grid[179, 180]]


def test_a_header_that_ends_just_short_of_the_pole_still_holds_it(tmp_path: Path) -> None:
    grid = np.arange(1, 721 * 4, dtype=np.int16)[: 720 * 4].reshape(720, 4)
    path = write_raster(tmp_path / "gpw.tif", grid, Affine(90, 0, -180, 0, -0.25, 89.99999999999991))
    values, _, inside = at(path, [90.0, -90.0], [-100.0, -100.0])
    assert inside.all()
    assert values.tolist() == [grid[0, 0], grid[719, 0]]


def test_a_raster_from_0_to_360_holds_western_longitudes(tmp_path: Path) -> None:
    grid = np.arange(36, dtype=np.uint8).reshape(1, 36) + 1
    path = write_raster(tmp_path / "east.tif", grid, from_origin(0, 90, 10, 180))
    values, _, inside = at(path, [0.0, 0.0, 0.0, 0.0], [5.0, -5.0, -180.0, 180.0])
    assert inside.all()
    assert values.tolist() == [1, 36, 19, 19]


@pytest.mark.parametrize(
    ("crs", "x0", "y0", "size"),
    [
        ("EPSG:32633", 300_000, 5_500_000, 1000),
        ("EPSG:3857", 1_000_000, 6_000_000, 5000),
        ("EPSG:3031", -2e6, 2e6, 5e4),
    ],
)
def test_points_are_carried_into_the_rasters_own_projection(
    tmp_path: Path, crs: str, x0: float, y0: float, size: float
) -> None:
    grid = np.random.default_rng(2).integers(1, 30_000, (80, 60), np.int16)
    transform = Affine(size, 0, x0, 0, -size, y0)
    path = write_raster(tmp_path / "projected.tif", grid, transform, crs)
    rng = np.random.default_rng(3)
    x, y = x0 + rng.uniform(0, 60, 500) * size, y0 - rng.uniform(0, 80, 500) * size
    lon, lat = Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(x, y)
    values, _, inside = at(path, lat, lon)
    assert inside.all()
    np.testing.assert_array_equal(values, brute_force(path, y, x))


def test_a_rotated_raster_is_indexed_by_its_whole_transform(tmp_path: Path) -> None:
    grid = np.arange(1, 101, dtype=np.uint8).reshape(10, 10)
    transform = Affine.translation(10, 50) @ Affine.rotation(30) @ Affine.scale(0.1, -0.1)
    path = write_raster(tmp_path / "rotated.tif", grid, transform)
    column, row = np.meshgrid(np.arange(10) + 0.5, np.arange(10) + 0.5)
    lon, lat = (
        transform.a * column + transform.b * row + transform.c,
        transform.d * column + transform.e * row + transform.f,
    )
    values, _, inside = at(path, lat.ravel(), lon.ravel())
    assert inside.all()
    np.testing.assert_array_equal(values, grid.ravel())


class TestNoData:
    def check(self, path: Path, valid: list[bool], **source: Any) -> None:
        """The raster is one row of pixels of 1 degree from (0, 0) eastwards."""
        lon = np.arange(len(valid)) + 0.5
        assert at(path, np.full(len(valid), -0.5), lon, **source)[1].tolist() == valid

    def row(self, path: Path, values: list[float], dtype: str, **options: Any) -> Path:
        return write_raster(path, np.array([values], dtype), from_origin(0, 0, 1, 1), **options)

    def test_declared_value(self, tmp_path: Path) -> None:
        self.check(self.row(tmp_path / "a.tif", [0, 1, 255], "uint8", nodata=255), [True, True, False])

    def test_float32_minimum(self, tmp_path: Path) -> None:
        lowest = float(np.finfo("float32").min)
        self.check(self.row(tmp_path / "a.tif", [lowest, 0.0], "float32", nodata=lowest), [False, True])

    def test_nan_is_never_valid(self, tmp_path: Path) -> None:
        self.check(self.row(tmp_path / "a.tif", [np.nan, 2.0], "float32"), [False, True])
        self.check(self.row(tmp_path / "b.tif", [np.nan, 2.0], "float32", nodata=np.nan), [False, True])

    def test_a_value_that_the_type_cannot_hold_hides_nothing(self, tmp_path: Path) -> None:
        # -9999 wraps to 241 in an unsigned byte
        path = self.row(tmp_path / "a.tif", [241, 0], "uint8")
        self.check(path, [True, True], nodata=-9999)

    def test_given_instead_of_declared(self, tmp_path: Path) -> None:
        path = self.row(tmp_path / "a.tif", [-2147483647, 5], "int32")
        self.check(path, [True, True])
        self.check(path, [False, True], nodata=-2147483647)

    def test_mask_band(self, tmp_path: Path) -> None:
        path = self.row(tmp_path / "a.tif", [7, 7, 7], "uint8")
        with rasterio.open(path, "r+") as dataset:
            dataset.write_mask(np.array([[True, False, True]]))
        self.check(path, [True, False, True])

    def test_alpha_band(self, tmp_path: Path) -> None:
        path = tmp_path / "a.tif"
        transform = from_origin(0, 0, 1, 1)
        with rasterio.open(
            path, "w", driver="GTiff", width=2, height=1, count=2, dtype="uint8", crs="EPSG:4326", transform=transform,
            photometric="MINISBLACK", alpha="yes",
        ) as dataset:  # fmt: skip
            dataset.write(np.array([[[9, 9]], [[255, 0]]], np.uint8))
        self.check(path, [True, False])


def test_a_raster_that_breaks_off_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = world(tmp_path / "world.tif", blockysize=1, compress=None)
    file = cataloged(path).file
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(InputError, match=r"world\.tif"):
        read_pixels(file, np.array([179]), np.array([5]))


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("s3a://bucket/a b/x.tif", "/vsis3/bucket/a b/x.tif"),
        ("file:/data/x.tif", "/data/x.tif"),
        ("file:///data/x.tif", "/data/x.tif"),
        ("/data/x.tif", "/data/x.tif"),
    ],
)
def test_gdal_opens_the_same_file_as_hadoop(uri: str, name: str) -> None:
    assert gdal_path(uri) == name
