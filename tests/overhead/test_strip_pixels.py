"""Levels, grids and pixels of strips against numpy, PROJ, rasterio and GDAL's own programs."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from fabricated_strips import texture, write_strip
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pyproj import Transformer
from rasterio.enums import Resampling
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window
from scipy.ndimage import binary_erosion, map_coordinates

from geosieve.overhead.strips import reader as readers
from geosieve.overhead.strips import tiles
from geosieve.overhead.strips.config import StripSource
from geosieve.overhead.strips.levels import Search, count_digits, digits_of, greys
from geosieve.overhead.strips.plan import Refused, Strip, describe
from geosieve.overhead.strips.reader import opened, part_of, parts, warped, windows
from geosieve.overhead.strips.tiles import picture, tile_windows

DATA = Path(__file__).parents[3] / "shared" / "data" / "satellite"
SAMPLES = {
    "apls_RGB-PanSharpen_AOI_2_Vegas_img0.tif": 0.3,
    "riotiler_mosaic_cog1.tif": 100.0,
    "riotiler_mosaic_cog2.tif": 100.0,
    "solaris_ms1.tif": 0.3,
    "solaris_pan2.tif": 0.3,
    "solaris_sample_geotiff.tif": 0.3,
    "solaris_sample_geotiff_custom_proj.tif": 30.0,
}
TYPES = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"]
Pair = tuple[float, float]
needs_data = pytest.mark.skipif(not DATA.exists(), reason="../shared/data is not there")


def planned(path: Path, **options: Any) -> Strip:
    return describe(path.stem, str(path), StripSource(name="test", uri=str(path), **options))


def percentiles(values: Any, pieces: int, wanted: tuple[float, ...]) -> list[float]:
    search = Search(wanted)
    for depth in range(digits_of(values.dtype)):
        counts = [count_digits(piece, depth, search.prefixes) for piece in np.array_split(values, pieces)]
        search = search.narrowed(np.sum(counts, axis=0))
    return search.results(values.dtype)


@pytest.mark.parametrize("dtype", TYPES)
@given(seed=st.integers(0, 1000), size=st.integers(1, 300), pieces=st.integers(1, 5))
def test_percentiles_are_numpys_however_the_values_are_divided(dtype: str, seed: int, size: int, pieces: int) -> None:
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        values = (rng.normal(size=size) * 10.0 ** rng.integers(-3, 4, size)).astype(dtype)
    else:
        values = rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, size, dtype=dtype, endpoint=True)
    wanted = (0.0, 2.0, 50.0, 98.0, 100.0)
    assert percentiles(values, pieces, wanted) == list(np.percentile(values.astype(np.float64), wanted))


def test_a_value_between_black_and_white_gets_the_nearest_grey() -> None:
    values = np.array([0, 100, 101, 150, 199, 200, 65535], np.uint16)
    assert greys(values, 100, 200).tolist() == [0, 0, 3, 128, 252, 255, 255]  # 2.55, 127.5, 252.45
    assert greys(values.astype(np.float64), 100, 200).tolist() == [0, 0, 3, 128, 252, 255, 255]


def test_a_strip_of_one_colour_is_grey() -> None:
    assert greys(np.array([6, 7, 8], np.uint8), 7, 7).tolist() == [0, 128, 255]


def test_windows_hold_every_pixel_once_and_cut_no_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "_PART_PIXELS", 1 << 16)
    monkeypatch.setattr(readers, "_WINDOW_PIXELS", 1 << 14)
    monkeypatch.setattr(readers, "_COLUMNS", 128)
    values = texture(3, 700, 500)
    path = write_strip(tmp_path / "s.tif", values, Affine(1, 0, 5e5, 0, -1, 5e6), "EPSG:32633", tiled=True,
                       blockxsize=64, blockysize=32)  # fmt: skip
    strip = planned(path)
    seen = np.zeros((700, 500), int)
    for first, last in parts(strip.source):
        for window in windows(strip.source, first, last):
            seen[window.toslices()] += 1
            assert window.row_off % 32 == 0 and window.col_off % 64 == 0
    assert len(parts(strip.source)) > 3 and (seen == 1).all()


PLACES = [
    *((zone * 6.0 - 183.0 + off, lat) for zone in (1, 17, 31, 60) for off in (0.0, 2.4) for lat in (48.2, -33.9)),
    *((lon, lat) for lon in (-6.0, 0.0, 12.0, 180.0, -180.0) for lat in (0.0, 60.0, -79.0)),
    (9.0, 83.9),
]


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857", "EPSG:3395", "utm"])
@pytest.mark.parametrize(("lon", "lat"), PLACES)
def test_a_raster_of_its_own_coordinates_keeps_them_to_half_a_pixel(
    tmp_path: Path, crs: str, lon: float, lat: float
) -> None:
    size = 120
    if crs == "EPSG:4326":
        centre, pixel = (lon, lat), (1e-5 / np.cos(np.radians(lat)), 1e-5)
    else:
        zone = int((lon - 4.0 + 180) // 6) % 60 + 1  # often the neighbour of the strip's own
        crs = crs if crs != "utm" else f"EPSG:{(32600 if lat >= 0 else 32700) + zone}"
        centre = Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(lon, lat)
        metre = 1.0 / np.cos(np.radians(lat)) if crs in ("EPSG:3857", "EPSG:3395") else 1.0  # of the ground
        pixel = (metre, metre)
    transform = Affine(pixel[0], 0, centre[0] - pixel[0] * size / 2, 0, -pixel[1], centre[1] + pixel[1] * size / 2)
    columns, rows = np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5)
    values = np.stack([columns, rows, columns])
    strip = planned(write_strip(tmp_path / "s.tif", values, transform, crs), resolution_m=0.7)
    assert strip.epsg % 100 == int(((lon + 180) % 360) // 6) + 1 and (strip.epsg >= 32700) == (lat < 0)

    # From the place of each pixel on the Earth, by PROJ, to where the source has it.
    to_source = Transformer.from_crs(strip.epsg, crs, always_xy=True)
    checked = 0
    half = strip.target.width // 2 // 2
    for window in (Window(0, 0, half, strip.target.height), Window(half, 7, half, strip.target.height - 7)):
        grid = part_of(strip.target, window)
        with opened(strip) as reader:
            pixels = warped(reader, grid, "bilinear")
        known = pixels.known[0]
        at = np.meshgrid(np.arange(grid.width) + 0.5, np.arange(grid.height) + 0.5)
        x, y = to_source.transform(*(grid.transform * at))
        turn = strip.source.grid.system.turn
        if turn:
            x = x + turn * np.round((centre[0] - x) / turn)
        column, row = ~transform * (x, y)
        inside = (column > 1) & (column < size - 1) & (row > 1) & (row < size - 1)
        assert known[inside].all()
        outside = (column < -1) | (column > size + 1) | (row < -1) | (row > size + 1)
        assert not known[outside].any()
        assert np.abs(pixels.values[0] - column)[inside].max() < 0.5
        assert np.abs(pixels.values[1] - row)[inside].max() < 0.5
        checked += inside.sum()
    assert checked > 3000


@pytest.mark.parametrize("lat", [84.5, -80.5, 89.9])
def test_a_strip_near_a_pole_is_refused(tmp_path: Path, lat: float) -> None:
    path = write_strip(tmp_path / "s.tif", texture(3, 40, 40), Affine(1e-4, 0, 10, 0, -1e-4, lat), "EPSG:4326")
    with pytest.raises(Refused, match="UTM serves") as refused:
        planned(path)
    assert refused.value.args[0] == "outside_utm"


def test_a_strip_too_wide_or_too_large_for_a_zone_is_refused(tmp_path: Path) -> None:
    wide = write_strip(tmp_path / "w.tif", texture(3, 40, 400), Affine(0.1, 0, 0, 0, -0.1, 50), "EPSG:4326")
    with pytest.raises(Refused, match="cut it up"):
        planned(wide)
    large = write_strip(tmp_path / "l.tif", texture(3, 40, 40), Affine(0.05, 0, 0, 0, -0.05, 50), "EPSG:4326")
    with pytest.raises(Refused, match="raise strips"):
        planned(large)
    assert planned(large, resolution_m=100).target.width > 1000


def test_strips_of_one_zone_share_the_edges_of_pixels(tmp_path: Path) -> None:
    for n, left in enumerate((500000.13, 500777.77)):
        path = write_strip(tmp_path / f"{n}.tif", texture(3, 40, 40), Affine(1, 0, left, 0, -1, 5e6), "EPSG:32633")
        edge = planned(path).target.transform.c / 0.3
        assert abs(edge - round(edge)) < 1e-6


def test_a_strip_that_is_on_the_grid_already_is_not_changed(tmp_path: Path) -> None:
    values = texture(3, 64, 80, "uint8", 255)
    strip = planned(write_strip(tmp_path / "s.tif", values, Affine(1, 0, 5e5, 0, -1, 5e6), "EPSG:32633"),
                    resolution_m=1)  # fmt: skip
    assert (strip.target.width, strip.target.height) == (80, 64)
    with opened(strip) as reader:
        out = picture(reader, strip, [(0, 255)] * 3, Window(0, 0, 80, 64), "cubic")
    np.testing.assert_array_equal(out[:3], values)
    assert (out[3] == 255).all()


@pytest.mark.parametrize("resampling", ["nearest", "bilinear", "cubic"])
def test_empty_pixels_stay_empty_and_colour_no_others(tmp_path: Path, resampling: str) -> None:
    values = np.full((3, 60, 60), 100, np.int16)
    values[:, 20:40, 30:45] = -9999
    values[0, 50, 50] = -9999  # one band alone: the others are known
    path = write_strip(tmp_path / "s.tif", values, Affine(1, 0, 5e5, 0, -1, 5e6), "EPSG:32633", nodata=-9999)
    strip = planned(path, resolution_m=0.5)
    with opened(strip) as reader:
        assert reader.read(Window(0, 0, 60, 60)).known.sum(axis=(1, 2)).tolist() == [3299, 3300, 3300]
        out = picture(reader, strip, [(0, 200)] * 3, Window(0, 0, 120, 120), resampling)
    expected = np.repeat(np.repeat((values != -9999).any(axis=0), 2, axis=0), 2, axis=1)
    np.testing.assert_array_equal(out[3] != 0, expected)
    assert set(np.unique(out[1][out[3] != 0])) == {128} and set(np.unique(out[:, out[3] == 0])) == {0}


def test_not_a_number_is_empty_and_a_mask_is_obeyed(tmp_path: Path) -> None:
    values = texture(3, 30, 30, "float32")
    values[1, 4:9, :5] = np.nan
    values[2, 20, 20] = np.inf
    strip = planned(write_strip(tmp_path / "n.tif", values, Affine(1, 0, 5e5, 0, -1, 5e6), "EPSG:32633"))
    with opened(strip) as reader:
        assert (~reader.read(Window(0, 0, 30, 30)).known).all(axis=0).sum() == 26
    path = write_strip(tmp_path / "m.tif", texture(3, 30, 30), Affine(1, 0, 5e5, 0, -1, 5e6), "EPSG:32633")
    with rasterio.open(path, "r+") as file:
        file.write_mask(np.arange(900).reshape(30, 30) >= 60)
    with opened(planned(path)) as reader:
        assert reader.read(Window(0, 0, 30, 30)).known.sum() == 3 * 840


def test_a_strip_that_changed_or_is_gone_is_refused(tmp_path: Path) -> None:
    path = write_strip(tmp_path / "s.tif", texture(3, 30, 30), Affine(1, 0, 5e5, 0, -1, 5e6), "EPSG:32633")
    strip = planned(path)
    write_strip(path, texture(3, 30, 30, seed=1), Affine(1, 0, 5e5, 0, -1, 5e6), "EPSG:32633")
    with pytest.raises(Refused, match="changed since it was listed"), opened(strip):
        pass
    path.unlink()
    with pytest.raises(Refused) as refused, opened(strip):
        pass
    assert refused.value.args[0] == "changed"


def test_which_bands_are_red_green_and_blue(tmp_path: Path) -> None:
    place = (Affine(1, 0, 5e5, 0, -1, 5e6), "EPSG:32633")
    chosen = {
        n: planned(write_strip(tmp_path / f"{n}.tif", texture(n, 9, 9), *place)).raster.bands for n in (1, 3, 4, 8)
    }
    assert chosen == {1: (1, 1, 1), 3: (1, 2, 3), 4: (3, 2, 1), 8: (5, 3, 2)}
    assert planned(tmp_path / "8.tif", bands=[7, 3, 2]).raster.bands == (7, 3, 2)
    assert planned(tmp_path / "8.tif", bands=[8]).raster.bands == (8, 8, 8)
    two = write_strip(tmp_path / "2.tif", texture(2, 9, 9), *place)
    for options, error_class in (({}, "unknown_bands"), ({"bands": [1, 2, 3]}, "missing_band")):
        with pytest.raises(Refused) as refused:
            planned(two, **options)
        assert refused.value.args[0] == error_class


def gdals(strip: Strip, levels: Sequence[Pair], resampling: str, folder: Path, tolerance: str) -> NDArray[np.uint8]:
    """Red, green and blue by gdal_translate and gdalwarp; where they are not installed, by rasterio on whole arrays."""
    grid = strip.target
    if shutil.which("gdalwarp"):
        scale = [t for n, (a, b) in enumerate(levels, 1) for t in (f"-scale_{n}", repr(a), repr(b), "0", "255")]
        bands = [t for band in strip.raster.bands for t in ("-b", str(band))]
        plain = ["-q", "-ot", "Byte", "-mask", "none", "-a_nodata", "none", "-colorinterp", "red,green,blue"]
        subprocess.run(["gdal_translate", *plain, *bands, *scale, strip.raster.uri, folder / "t.tif"], check=True)
        place = ["-te", *map(repr, grid.bounds()), "-ts", str(grid.width), str(grid.height)]
        place += ["-t_srs", f"EPSG:{strip.epsg}", "-r", resampling.replace("nearest", "near"), "-et", tolerance]
        subprocess.run(["gdalwarp", "-q", "-overwrite", *place, folder / "t.tif", folder / "w.tif"], check=True)
        with rasterio.open(folder / "w.tif") as file:
            return np.asarray(file.read())
    with rasterio.open(strip.raster.uri) as file:
        values = file.read(strip.raster.bands).astype(np.float64)
        black, white = (np.array(v)[:, None, None] for v in zip(*levels, strict=True))
        scaled = np.clip(np.floor((values - black) * 255 / (white - black) + 0.5), 0, 255).astype(np.uint8)
        write_strip(folder / "t.tif", scaled, file.transform, file.crs)
    at = {"crs": grid.crs_wkt, "transform": grid.transform, "width": grid.width, "height": grid.height}
    method = {"resampling": Resampling[resampling], "tolerance": max(float(tolerance), 0.001)}
    with rasterio.open(folder / "t.tif") as file, WarpedVRT(file, **at, **method) as warped_file:
        return np.asarray(warped_file.read())


def whole(strip: Strip, resampling: str) -> tuple[NDArray[np.uint8], list[Pair], NDArray[np.bool_]]:
    """The picture of a strip, its levels, and which pixels are so far inside that empty ones do not reach them."""
    with opened(strip) as reader:
        source = reader.read(Window(0, 0, strip.source.grid.width, strip.source.grid.height))
        pairs = [np.percentile(v[k], [2, 98]) for v, k in zip(source.values, source.known, strict=True)]
        levels = [(float(black), float(white)) for black, white in pairs]
        out = np.zeros((4, strip.target.height, strip.target.width), np.uint8)
        for window in tile_windows(strip):
            out[(slice(None), *window.toslices())] = picture(reader, strip, levels, window, resampling)
    reach = 2 + 3 * int(np.ceil(strip.native_resolution_m / strip.target.transform.a))
    inner = binary_erosion(out[3] != 0, iterations=reach)  # GDAL has colours in empty pixels, but none here
    assert inner.mean() > 0.4
    return out[:3], levels, inner


def share_within_a_level(one: Any, other: Any, inner: NDArray[np.bool_]) -> float:
    return float((np.abs(one.astype(int) - other.astype(int)).max(axis=0)[inner] <= 1).mean())


def assert_like_gdal(strip: Strip, resampling: str, folder: Path) -> None:
    """gdalwarp places pixels exactly with `-et 0`: without, see the test of places below."""
    out, levels, inner = whole(strip, resampling)
    assert share_within_a_level(out, gdals(strip, levels, resampling, folder, "0"), inner) >= 0.999


@needs_data
@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("resampling", ["bilinear", "cubic"])
def test_a_real_strip_is_as_gdal_makes_it(tmp_path: Path, name: str, resampling: str) -> None:
    assert_like_gdal(planned(DATA / name, resolution_m=SAMPLES[name]), resampling, tmp_path)


@pytest.mark.parametrize(("crs", "x", "y", "size"), [
    ("EPSG:32634", 480000, 4e6, 0.35), ("EPSG:3857", -7e6, -4e6, 0.4),
])  # fmt: skip
def test_a_made_up_strip_of_several_tiles_is_as_gdal_makes_it(
    tmp_path: Path, crs: str, x: float, y: float, size: float
) -> None:
    values = texture(4, 700, 1300)
    strip = planned(write_strip(tmp_path / "s.tif", values, Affine(size, 0, x, 0, -size, y), crs), resolution_m=0.2)
    assert len(tile_windows(strip)) > 1
    assert_like_gdal(strip, "bilinear", tmp_path)


def interpolated(strip: Strip, values: Any, levels: Sequence[Pair]) -> NDArray[np.floating[Any]]:
    """Greys between the four nearest pixels of the strip, by pyproj and scipy."""
    grid, source = strip.target, strip.source.grid
    at = np.meshgrid(np.arange(grid.width) + 0.5, np.arange(grid.height) + 0.5)
    to_source = Transformer.from_crs(strip.epsg, source.crs_wkt, always_xy=True)
    column, row = ~source.transform * to_source.transform(*(grid.transform * at))
    places = [row - 0.5, column - 0.5]  # of the centres of pixels
    grey = [greys(values[band - 1], *pair).astype(float) for band, pair in zip(strip.raster.bands, levels, strict=True)]
    return np.floor(np.stack([map_coordinates(band, places, order=1, mode="nearest") for band in grey]) + 0.5)


@pytest.mark.parametrize("holes", [False, True])
def test_a_turned_strip_is_not_blurred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, holes: bool) -> None:
    """Its tiles need larger windows of it than they are themselves, which is no reason to merge pixels."""
    monkeypatch.setattr(tiles, "_SIDE_PX", 256)
    values = texture(4, 900, 900) + 1
    turned = Affine(0.3, 0, 5e5, 0, -0.3, 5e6) * Affine.rotation(20)
    if holes:
        values[:, 450, ::150] = 0
    strip = planned(write_strip(tmp_path / "s.tif", values, turned, "EPSG:32633", nodata=0))
    assert strip.native_resolution_m == pytest.approx(0.3) and len(tile_windows(strip)) > 16
    out, levels, inner = whole(strip, "bilinear")
    assert share_within_a_level(out, interpolated(strip, values, levels), inner) >= 0.9999


def test_pixels_lie_where_proj_says_and_gdalwarp_agrees_once_it_does_not_approximate(tmp_path: Path) -> None:
    """By default gdalwarp accepts places that are wrong by an eighth of a pixel, which shows at steep edges."""
    size, values = 3e-6, texture(4, 700, 2400)
    path = write_strip(tmp_path / "s.tif", values, Affine(size, 0, 14.9, 0, -size, 50.1), "EPSG:4326")
    strip = planned(path, resolution_m=0.2)
    assert len(tile_windows(strip)) > 1
    out, levels, inner = whole(strip, "bilinear")
    exact = interpolated(strip, values, levels)
    assert share_within_a_level(out, exact, inner) >= 0.9999
    if shutil.which("gdalwarp"):
        assert share_within_a_level(out, gdals(strip, levels, "bilinear", tmp_path, "0"), inner) >= 0.9999
        approximate = gdals(strip, levels, "bilinear", tmp_path, "0.125")
        assert share_within_a_level(exact, approximate, inner) < 0.999


def test_a_coarse_picture_is_made_of_small_tiles(tmp_path: Path) -> None:
    strip = planned(write_strip(tmp_path / "s.tif", texture(3, 900, 900), Affine(1, 0, 5e5, 0, -1, 5e6), "EPSG:32633"),
                    resolution_m=7.0)  # fmt: skip
    assert max(window.width for window in tile_windows(strip)) * 7.0 <= 2 * 2048
    assert_like_gdal(strip, "bilinear", tmp_path)


def test_a_panchromatic_partner_sharpens_as_brovey_says(tmp_path: Path) -> None:
    colours = np.stack([np.full((50, 50), v, np.uint16) for v in (300, 200, 100)])  # blue, green, red, 2 m
    write_strip(tmp_path / "MUL/s.tif", colours, Affine(2, 0, 5e5, 0, -2, 5e6), "EPSG:32633")
    sharp = texture(1, 200, 200, seed=3)
    write_strip(tmp_path / "PAN/s.tif", sharp, Affine(0.5, 0, 5e5, 0, -0.5, 5e6), "EPSG:32633")
    partner = {"replace": "/MUL/", "by": "/PAN/"}
    strip = planned(tmp_path / "MUL/s.tif", bands=[3, 2, 1], panchromatic=partner)
    assert strip.native_resolution_m == pytest.approx(0.5) and strip.dtype == np.uint16
    with opened(strip) as reader:
        found = reader.read(Window(10, 20, 100, 90))
    wanted = np.floor(sharp[0, 20:110, 10:110] * np.array([100, 200, 300])[:, None, None] / 200 + 0.5)
    np.testing.assert_array_equal(found.values, wanted)
    assert found.known.all()


@needs_data
def test_a_real_pair_is_sharpened_as_rasterio_and_numpy_do_it() -> None:
    partner = {"replace": "_ms", "by": "_pan"}
    strip = planned(DATA / "solaris_ms1.tif", panchromatic=partner)
    with opened(strip) as reader:
        found = reader.read(Window(100, 200, 300, 250))
    with rasterio.open(DATA / "solaris_pan1.tif") as pan, rasterio.open(DATA / "solaris_ms1.tif") as ms:
        grid = {"crs": pan.crs, "transform": pan.transform, "width": pan.width, "height": pan.height}
        with WarpedVRT(ms, **grid, resampling=Resampling.bilinear) as upsampled:
            colours = upsampled.read((3, 2, 1))
        wanted = np.floor(colours * pan.read(1) / colours.mean(axis=0) + 0.5)[:, 200:450, 100:400]
    assert np.abs(found.values - wanted).max() <= 1 and (found.values == wanted).mean() > 0.99


def test_a_strip_without_its_partner_is_refused(tmp_path: Path) -> None:
    path = write_strip(tmp_path / "MUL/s.tif", texture(3, 9, 9), Affine(2, 0, 5e5, 0, -2, 5e6), "EPSG:32633")
    for rule in ({"replace": "/MUL/", "by": "/PAN/"}, {"replace": "/ELSE/", "by": "/PAN/"}):
        with pytest.raises(Refused) as refused:
            planned(path, panchromatic=rule)
        assert refused.value.args[0] == "missing_panchromatic"
