"""Where chips lie, what their pixels are, and which raster has a position, by PROJ, rasterio, GDAL and geodesics."""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
import shapely
from fabricated_chips import WGS84, catalogued, strip
from fabricated_strips import texture, write_strip
from PIL import Image
from pyproj import Geod, Transformer
from rasterio.enums import Resampling
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT
from scipy.ndimage import binary_erosion

from geosieve.overhead.chips import plan, reading
from geosieve.overhead.chips.config import View
from geosieve.overhead.chips.plan import RasterFinder, chip_grid
from geosieve.overhead.chips.reading import Chip, OpenRaster, Unreadable, cut, encoded
from geosieve.overhead.chips.sources import ChipRaster, utm_wkt
from geosieve.overhead.strips.plan import utm_epsg
from geosieve.rasters.candidates import CandidateIndex, cell_keys
from geosieve.rasters.footprint import place
from geosieve.rasters.georeference import PixelGrid
from geosieve.runtime.errors import InputError

DATA = Path(__file__).parents[3] / "shared" / "data" / "satellite"
needs_data = pytest.mark.skipif(not DATA.exists(), reason="../shared/data is not there")


def chip_of(raster: ChipRaster, view: View, lat: float, lon: float, resampling: str = "bilinear") -> tuple[Any, Chip]:
    rasters = OpenRaster()
    try:
        grid = chip_grid(raster, view, lat, lon)
        return grid, cut(rasters, raster, grid, resampling)
    finally:
        rasters.close()


def coordinates(height: int, width: int) -> Any:
    """Pixels whose values are their column, their row, and the higher digits of both."""
    row, column = np.mgrid[:height, :width]
    return np.stack([column % 256, row % 256, column // 256 * 16 + row // 256]).astype(np.uint8)


def column_and_row(values: Any) -> tuple[Any, Any]:
    red, green, blue = values.astype(int)
    return red + blue // 16 * 256, green + blue % 16 * 256


ZONES = [(zone, north) for zone in range(1, 61) for north in (True, False)]


def test_the_centre_is_the_position_within_half_a_pixel_in_every_zone_and_both_hemispheres(tmp_path: Path) -> None:
    """Of a raster whose values are its own coordinates; it has tiles of 64 pixels, and zones 1 and 60 meet at ±180."""
    rng = np.random.default_rng(3)
    values, view = coordinates(400, 300), View(size_px=90, resolution_m=0.3)
    for zone, north in ZONES:
        epsg = (32600 if north else 32700) + zone
        to_utm = Transformer.from_crs(WGS84, f"EPSG:{epsg}", always_xy=True)
        lat = rng.uniform(0.1, 83.9) if north else rng.uniform(-79.9, -0.1)
        lon = zone * 6 - 183 + rng.choice([-3.0, 0.0, 2.0, 3.0])  # also on both borders of the zone
        x, y = (np.floor(v / 0.3) * 0.3 for v in to_utm.transform(lon, lat))
        place = Affine(0.3, 0, x - 45, 0, -0.3, y + 60)
        path = write_strip(tmp_path / "s.tif", values, place, f"EPSG:{epsg}", tiled=True, blockxsize=64, blockysize=64)
        raster = strip(path)
        for _ in range(2):
            at = place * (rng.uniform(50, 250), rng.uniform(50, 350))
            lon, lat = to_utm.transform(*at, direction="INVERSE")
            lon = (lon + 180) % 360 - 180  # at ±180, the other side's way of writing it
            grid, chip = chip_of(raster, view, lat, lon)
            assert grid.epsg == epsg and chip.empty_share == 0
            middle = grid.grid.transform * (45, 45)
            assert np.abs(np.subtract(middle, at)).max() <= 0.15 + 1e-6
            column, row = column_and_row(chip.greys)  # of the raster, of each pixel of the chip
            wanted_column, wanted_row = ~place * (grid.grid.transform * (0.5, 0.5))
            assert (column[0, 0] + 0.5, row[0, 0] + 0.5) == pytest.approx((wanted_column, wanted_row), abs=1e-4)
            assert (np.diff(column, axis=1) == 1).all() and (np.diff(row, axis=0) == 1).all()
            assert abs(column[45, 45] - (~place * at)[0]) <= 0.5 + 1e-6
            assert abs(row[45, 45] - (~place * at)[1]) <= 0.5 + 1e-6


@pytest.mark.parametrize(("crs", "x", "y", "step"), [
    (WGS84, 14.99, 50.1, 1e-5), (WGS84, -179.999, -17.0, 1e-5), (WGS84, 179.998, 65.0, 1e-5),
    ("EPSG:3857", -7e6, -4e6, 1.0), ("EPSG:32634", 480000, 4e6, 0.8), ("EPSG:2056", 2.6e6, 1.2e6, 0.7),
])  # fmt: skip
@pytest.mark.parametrize("orientation", ["raster", "north"])
def test_resampled_chips_lie_where_proj_says(
    tmp_path: Path, crs: str, x: float, y: float, step: float, orientation: Any
) -> None:
    """Values are halves of columns and rows: bilinear interpolation keeps them, apart from rounding."""
    row, column = np.mgrid[:500, :500]
    values = np.stack([column / 2, row / 2, np.zeros_like(row)]).astype(np.uint8)
    transform = Affine(step, 0, x, 0, -step, y)
    path = write_strip(tmp_path / "s.tif", values, transform, crs, tiled=True, blockxsize=64, blockysize=64)
    raster = catalogued(path)
    to_crs = Transformer.from_crs(WGS84, crs, always_xy=True)
    lon, lat = to_crs.transform(*(transform * (243.3, 258.8)), direction="INVERSE")
    lon = (lon + 180) % 360 - 180
    grid, chip = chip_of(raster, View(size_px=120, resolution_m=0.6, orientation=orientation), lat, lon)
    assert grid.window is None and chip.empty_share == 0 and grid.epsg == utm_epsg(lat, lon)
    to_utm = Transformer.from_crs(WGS84, f"EPSG:{grid.epsg}", always_xy=True)
    assert grid.grid.transform * (60, 60) == pytest.approx(to_utm.transform(lon, lat), abs=1e-6)
    at = np.meshgrid(np.arange(120) + 0.5, np.arange(120) + 0.5)
    of_x, of_y = grid.grid.transform * at
    there = to_crs.transform(*to_utm.transform(of_x, of_y, direction="INVERSE"))
    turn = 360 if crs == WGS84 else 0
    found_column, found_row = ~transform * (
        there[0] + (turn * np.round((x - there[0]) / turn) if turn else 0),
        there[1],
    )
    # A value is half of the column at the pixel's centre, rounded down: 0.5 less, and half a grey of rounding more.
    assert np.abs(chip.greys[0] * 2.0 + 1.0 - found_column).max() <= 1.6
    assert np.abs(chip.greys[1] * 2.0 + 1.0 - found_row).max() <= 1.6
    columns = np.diff(found_column, axis=0)
    if orientation == "raster":  # up in the chip is up in the raster: a column of the chip is one of the raster
        assert np.abs(columns).max() < 1e-2
    else:
        assert grid.grid.transform.b == grid.grid.transform.d == 0


@pytest.mark.parametrize("lat", [-80.0, -79.9, -60.0, -33.3, 0.0, 1e-9, 12.0, 45.0, 71.0, 83.9, 84.0])
@pytest.mark.parametrize("beside", [-5.9, -3.0, -1.0, 0.0, 2.9, 3.4, 6.0])
def test_a_chip_is_225_metres_on_the_ground_within_two_thousandths(lat: float, beside: float) -> None:
    """Also where a strip reaches far beyond its zone: there the position's own zone is taken."""
    lon = 9.0 + beside
    epsg = 32632 if lat >= 0 else 32732
    to_utm = Transformer.from_crs(WGS84, f"EPSG:{epsg}", always_xy=True)
    x, y = to_utm.transform(lon, lat)
    grid = PixelGrid(utm_wkt(epsg), Affine(0.3, 0, x - 3000, 0, -0.3, y + 3000), 20000, 20000)
    wide = ChipRaster("s", "u", "strip", grid, epsg, (512, 512), b"", None, None, 0.3, 0, 1, None, (1, 2, 3), None)
    loose = ChipRaster("c", "u", None, grid, None, (512, 512), b"", None, None, 0.3, 0, None, None, (1, 2, 3), None)
    for raster in (wide, loose):
        chip = chip_grid(raster, View(), lat, lon)
        assert (chip.epsg == epsg) or abs(beside) > 3 or raster is loose
        back = Transformer.from_crs(f"EPSG:{chip.epsg}", WGS84, always_xy=True)
        corners = [chip.grid.transform * at for at in ((0, 375), (750, 375), (375, 0), (375, 750))]
        (w, e, n, s) = (back.transform(*corner) for corner in corners)
        for (lon1, lat1), (lon2, lat2) in ((w, e), (n, s)):
            assert Geod(ellps="WGS84").inv(lon1, lat1, lon2, lat2)[2] == pytest.approx(225.0, rel=0.002)


def test_a_strip_keeps_its_zone_beyond_the_border_and_other_rasters_do_not() -> None:
    x, y = Transformer.from_crs(WGS84, "EPSG:32633", always_xy=True).transform(11.98, 50.0)  # in zone 32
    grid = PixelGrid(utm_wkt(32633), Affine(0.3, 0, x - 300, 0, -0.3, y + 300), 2000, 2000)
    for name, epsg in (("strip", 32633), (None, 32632)):
        raster = ChipRaster("s", "u", name, grid, 32633, (512, 512), b"", None, None, 0.3, 0, 1, None, None, None)
        chip = chip_grid(raster, View(), 50.0, 11.98)
        assert chip.epsg == epsg and (chip.window is not None) == (name is not None)


def test_fine_stripes_fade_and_do_not_alias(tmp_path: Path) -> None:
    """Stripes of one pixel, 0 and 255, at a quarter of the resolution: nearly their mean, 127.5, everywhere."""
    values = np.broadcast_to(np.where(np.arange(900) % 2, 255, 0), (3, 900, 900)).astype(np.uint8)
    path = write_strip(tmp_path / "s.tif", values, Affine(1, 0, 5e5, 0, -1, 5e6), "EPSG:32633")
    lon, lat = Transformer.from_crs("EPSG:32633", WGS84, always_xy=True).transform(5e5 + 450.3, 5e6 - 450.7)
    for resampling in ("bilinear", "cubic"):
        _, chip = chip_of(catalogued(path), View(size_px=100, resolution_m=4), lat, lon, resampling)
        assert np.abs(chip.greys.astype(float) - 127.5).max() < 20


def test_a_coarse_view_of_a_strip_is_read_from_its_overviews(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = write_strip(tmp_path / "p.tif", texture(3, 2050, 2050, "uint8", 255), Affine(0.5, 0, 5e5, 0, -0.5, 5e6),
                        "EPSG:32633")  # fmt: skip
    with rasterio.open(plain) as file:
        rasterio.shutil.copy(file, tmp_path / "cog.tif", driver="COG", OVERVIEW_RESAMPLING="AVERAGE")
    raster = strip(tmp_path / "cog.tif")
    lon, lat = Transformer.from_crs("EPSG:32633", WGS84, always_xy=True).transform(5e5 + 500, 5e6 - 500)
    view = View(size_px=100, resolution_m=4)
    read = []
    original = reading.RasterReader.read
    monkeypatch.setattr(reading.RasterReader, "read", lambda self, w: read.append(w.width) or original(self, w))
    _, chip = chip_of(raster, view, lat, lon)
    assert max(read) < 300  # of 800 pixels and more without
    _, exact = chip_of(catalogued(plain), view, lat, lon)
    assert min(read[1:]) > 800
    assert np.abs(chip.greys.astype(float) - exact.greys).mean() < 3  # of 255; both smooth, by other kernels


def test_what_is_beyond_the_edge_or_masked_is_empty_and_black(tmp_path: Path) -> None:
    place = Affine(1, 0, 5e5, 0, -1, 5e6)
    path = write_strip(tmp_path / "s.tif", texture(3, 200, 200, "uint8", 255), place, "EPSG:32633")
    with rasterio.open(path, "r+") as file:
        file.write_mask(np.arange(40_000).reshape(200, 200) % 200 >= 40)
    lon, lat = Transformer.from_crs("EPSG:32633", WGS84, always_xy=True).transform(5e5 + 50, 5e6 - 30)
    _, chip = chip_of(strip(path), View(size_px=100, resolution_m=1), lat, lon)
    assert chip.empty_share == 1 - 80 * 60 / 100**2  # 20 rows beyond the edge, 40 columns masked
    assert not chip.greys[:, :20].any() and not chip.greys[:, :, :40].any()
    assert (chip.greys[:, 20:, 40:] > 0).all()
    _, north = chip_of(catalogued(path), View(size_px=100, resolution_m=1.001), lat, lon)
    assert north.empty_share == pytest.approx(0.52, abs=0.01)


def test_a_strip_that_changed_is_gone_or_is_cut_off_is_refused(tmp_path: Path) -> None:
    place = Affine(1, 0, 5e5, 0, -1, 5e6)
    path = write_strip(tmp_path / "s.tif", texture(3, 300, 300, "uint8", 255), place, "EPSG:32633", compress="deflate",
                       tiled=True, blockxsize=64, blockysize=64)  # fmt: skip
    raster = strip(path)
    lon, lat = Transformer.from_crs("EPSG:32633", WGS84, always_xy=True).transform(5e5 + 150, 5e6 - 150)
    view, content = View(size_px=100, resolution_m=1), path.read_bytes()
    path.write_bytes(content[: len(content) // 2] + bytes(len(content) - len(content) // 2))
    with pytest.raises(Unreadable) as refused:
        chip_of(raster, view, lat, lon)
    assert refused.value.args[0] in ("truncated", "changed")
    for broken in (content[:-1], content + b"x"):
        path.write_bytes(broken)
        with pytest.raises(Unreadable, match="not the file that prepare_strips wrote"):
            chip_of(raster, view, lat, lon)
    path.unlink()
    with pytest.raises(Unreadable) as refused:
        chip_of(raster, view, lat, lon)
    assert refused.value.args[0] == "changed"


def test_a_catalogued_raster_that_changed_or_has_no_greys_ends_the_job(tmp_path: Path) -> None:
    place = Affine(1, 0, 5e5, 0, -1, 5e6)
    lon, lat = Transformer.from_crs("EPSG:32633", WGS84, always_xy=True).transform(5e5 + 150, 5e6 - 150)
    path = write_strip(tmp_path / "s.tif", texture(3, 300, 300, "uint8", 255), place, "EPSG:32633")
    raster = catalogued(path)
    write_strip(path, texture(3, 300, 300, "uint8", 255, seed=1), place, "EPSG:32633")
    with pytest.raises(InputError, match="changed since it was catalogued"):
        chip_of(raster, View(size_px=50), lat, lon)
    deep = write_strip(tmp_path / "d.tif", texture(1, 300, 300), place, "EPSG:32633")
    with pytest.raises(InputError, match="ranges"):
        chip_of(catalogued(deep), View(size_px=50), lat, lon)
    _, chip = chip_of(catalogued(deep, ranges=[(0, 2000)]), View(size_px=50, resolution_m=1), lat, lon)
    with rasterio.open(deep) as file:
        wanted = np.floor(file.read(1)[125:175, 125:175] * 255.0 / 2000 + 0.5)
    np.testing.assert_array_equal(chip.greys, np.broadcast_to(wanted, (3, 50, 50)))


def test_a_view_of_too_many_pixels_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_MOST_PIXELS", 10_000)
    path = write_strip(
        tmp_path / "s.tif", texture(3, 300, 300, "uint8", 255), Affine(1, 0, 5e5, 0, -1, 5e6), "EPSG:32633"
    )
    lon, lat = Transformer.from_crs("EPSG:32633", WGS84, always_xy=True).transform(5e5 + 150, 5e6 - 150)
    with pytest.raises(Unreadable) as refused:
        chip_of(catalogued(path), View(size_px=50, resolution_m=3), lat, lon)
    assert refused.value.args[0] == "too_coarse"


REAL = {  # resolution in metres, bands and ranges
    "apls_RGB-PanSharpen_AOI_2_Vegas_img0.tif": (0.3, (1, 2, 3), None),
    "riotiler_mosaic_cog1.tif": (150.0, (1, 2, 3), [(0, 8000)]),
    "riotiler_mosaic_cog2.tif": (150.0, (1, 2, 3), [(0, 8000)]),
    "solaris_ms1.tif": (0.5, (3, 2, 1), [(0, 1500)]),
    "solaris_sample_geotiff.tif": (0.5, (1, 1, 1), [(0, 2000)]),
    "solaris_sample_geotiff_custom_proj.tif": (40.0, (1, 1, 1), [(0, 2000)]),
}


@needs_data
@pytest.mark.parametrize("name", REAL)
def test_a_chip_of_a_real_raster_is_as_rasterio_and_gdalwarp_make_it(tmp_path: Path, name: str) -> None:
    resolution, bands, ranges = REAL[name]
    raster = catalogued(DATA / name, bands, ranges)
    middle = raster.grid.coordinates(np.array([raster.grid.height / 2]), np.array([raster.grid.width / 2]))
    lat, lon = (float(v[0]) for v in raster.grid.system.inverse(*middle))
    view = View(size_px=200, resolution_m=resolution, orientation="north")
    grid, chip = chip_of(raster, view, lat, lon)
    with rasterio.open(DATA / name) as file:
        values = file.read(bands).astype(np.float64)
        profile = {"driver": "GTiff", "count": 3, "dtype": "uint8", "height": file.height, "width": file.width}
        place = {"crs": file.crs, "transform": file.transform}
    if ranges:
        values = np.clip(np.floor(values * 255 / ranges[0][1] + 0.5), 0, 255)
    with rasterio.open(tmp_path / "greys.tif", "w", **profile, **place) as file:
        file.write(values.astype(np.uint8))
    target = {"crs": f"EPSG:{grid.epsg}", "transform": grid.grid.transform, "width": 200, "height": 200}
    with (
        rasterio.open(tmp_path / "greys.tif") as file,
        WarpedVRT(file, **target, resampling=Resampling.bilinear, tolerance=0.001) as warped,
    ):
        expected = [warped.read()]
    if shutil.which("gdalwarp"):
        west, south, east, north = grid.grid.bounds()
        options = ["-te", *map(repr, (west, south, east, north)), "-ts", "200", "200", "-r", "bilinear", "-et", "0"]
        where = ["-t_srs", f"EPSG:{grid.epsg}", tmp_path / "greys.tif", tmp_path / "w.tif"]
        subprocess.run(["gdalwarp", "-q", *options, *where], check=True)
        with rasterio.open(tmp_path / "w.tif") as file:
            expected.append(file.read())
    # Empty pixels have colours there, but not here.
    inner = binary_erosion((chip.greys != 0).any(axis=0), iterations=4)
    assert inner.mean() > 0.5
    for other in expected:
        difference = np.abs(chip.greys.astype(int) - other.astype(int)).max(axis=0)[inner]
        assert (difference <= 1).mean() >= 0.999


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_a_chip_is_a_picture_of_its_format(kind: str) -> None:
    values = texture(3, 96, 96, "uint8", 255)
    picture = Image.open(io.BytesIO(encoded(values, kind, 95)))
    assert (picture.format, picture.mode, picture.size) == (kind.upper(), "RGB", (96, 96))
    found = np.asarray(picture).transpose(2, 0, 1)
    difference = np.abs(found.astype(int) - values).mean()
    assert difference == 0 if kind == "png" else difference < 12


def test_the_finder_finds_the_first_raster_whose_pixels_hold_a_point(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against shapely, of turned and overlapping rasters in two zones and one in degrees, after any earlier one."""
    rng = np.random.default_rng(5)
    rasters = []
    for n in range(24):
        lon, lat = 12 + rng.uniform(-0.3, 0.3), 50 + rng.uniform(-0.3, 0.3)
        if n % 6 == 5:
            wkt, step, turn = rasterio.crs.CRS.from_epsg(4326).to_wkt(), 3e-4, 0.0
        else:
            wkt, step, turn = utm_wkt(utm_epsg(lat, lon)), 20.0, rng.uniform(0, 360)
        x, y = (
            float(v[0])
            for v in PixelGrid(wkt, Affine.identity(), 1, 1).system.forward(np.array([lat]), np.array([lon]))
        )
        transform = Affine.translation(x, y) * Affine.rotation(turn) * Affine.scale(step, -step)
        grid = PixelGrid(wkt, transform, int(rng.integers(300, 1500)), int(rng.integers(300, 1500)))
        outline = place(wkt, transform, grid.width, grid.height)[1]
        rasters.append(
            ChipRaster("s", str(n), None, grid, None, (64, 64), outline.wkb, None, None, 1, 0, 1, None, None, None)
        )
    lat, lon = 50 + rng.uniform(-0.5, 0.5, 3000), 12 + rng.uniform(-0.6, 0.6, 3000)
    keys = np.unique(cell_keys(lat, lon))
    west, south = keys % 1440 / 4 - 180, keys // 1440 / 4 - 90
    cell, item = np.array(
        [(k, n) for k, w, s in zip(keys, west, south, strict=True) for n, r in enumerate(rasters)
         if shapely.from_wkb(r.footprint).intersects(shapely.box(w, s, w + 0.25, s + 0.25))]
    ).T  # fmt: skip
    finder = RasterFinder(rasters, CandidateIndex.from_pairs(cell, item))
    after = rng.integers(-1, 10, 3000)
    found = finder.find(lat, lon, after)
    inside = np.zeros((24, 3000), bool)
    for n, raster in enumerate(rasters):
        x, y = Transformer.from_crs(WGS84, raster.grid.crs_wkt, always_xy=True).transform(lon, lat)
        column, row = ~raster.grid.transform * (x, y)
        inside[n] = (column >= 0) & (column < raster.grid.width) & (row >= 0) & (row < raster.grid.height)
        mine = found.raster == n
        np.testing.assert_array_equal(found.row[mine], np.floor(row[mine]))
        np.testing.assert_array_equal(found.column[mine], np.floor(column[mine]))
    inside &= np.arange(24)[:, None] > after
    np.testing.assert_array_equal(found.raster, np.where(inside.any(axis=0), inside.argmax(axis=0), -1))
    assert (found.raster >= 0).mean() > 0.3 and len(set(found.raster.tolist())) > 10


def test_chips_are_cut_in_bands_of_whole_blocks() -> None:
    """Of less rows where a block is as wide as the raster, which is 10,000 pixels wide."""
    for block, rows in (((512, 512), 4096), ((300, 512), 3900), ((5000, 9), 5000), ((1, 10_000), 256)):
        grid = PixelGrid("", Affine.identity(), 10_000, 10_000)
        raster = ChipRaster("s", "u", None, grid, None, block, b"", None, None, 1,
                            0, 1, None, None, None)  # fmt: skip
        assert plan.band_rows(raster) == rows
