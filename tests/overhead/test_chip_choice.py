"""Which of several rasters gives a chip, and what is said where none does."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from fabricated_chips import WGS84, strip
from fabricated_strips import write_strip
from PIL import Image
from pyproj import Transformer
from rasterio.transform import Affine

from geosieve.overhead.chips import job, plan
from geosieve.overhead.chips.config import ChipsConfig
from geosieve.overhead.chips.plan import RasterFinder
from geosieve.overhead.chips.sources import ChipRaster
from geosieve.rasters.candidates import CandidateIndex, cell_keys
from geosieve.rasters.sampling import gdal_environment

LON, LAT = Transformer.from_crs("EPSG:32633", WGS84, always_xy=True).transform(5e5 + 100, 5e6 - 100)


def one_colour(path: Path, grey: int, empty_rows: int, year: int | None = None) -> ChipRaster:
    """A strip of one grey around the position; the chip of 100 pixels lies in rows 50 to 150."""
    file = write_strip(path, np.full((3, 200, 200), grey, np.uint8), Affine(1, 0, 5e5, 0, -1, 5e6), "EPSG:32633")
    with rasterio.open(file, "r+") as made:
        made.write_mask(np.arange(200)[:, None].repeat(200, axis=1) >= 50 + empty_rows)
    return strip(file, None if year is None else datetime(year, 5, 1, tzinfo=UTC))


def outcomes(rasters: list[ChipRaster], rows: int = 1, **options: Any) -> list[dict[str, Any]]:
    """Of some rows at the position, whose chips are 100 pixels of a metre."""
    rasters = sorted(rasters, key=lambda raster: raster.preference)
    cell = cell_keys(np.array([LAT]), np.array([LON]))
    finder = RasterFinder(rasters, CandidateIndex.from_pairs(np.repeat(cell, len(rasters)), np.arange(len(rasters))))
    view = {"name": "v", "size_px": 100, "resolution_m": 1.0}
    config = ChipsConfig.model_validate(
        {"name": "n", "images": {"root": "t"}, "rasters": {"root": "t", "strips": ["s"]}, "output": "t",
         "views": [view], **options}
    )  # fmt: skip
    first = int(finder.find(np.array([LAT]), np.array([LON]), np.array([-1])).raster[0])
    key = {"source": "s", "uri": None, "lat": LAT, "lon": LON, "view": 0, "raster": first}
    return list(job._Cutter(finder, config).cut(iter([{**key, "image_id": str(n)} for n in range(rows)])))


def grey_of(outcome: dict[str, Any]) -> int:
    return int(np.median(np.asarray(Image.open(io.BytesIO(outcome["chip"])))))


def test_a_whole_chip_is_preferred_to_a_later_one_with_empty_pixels(tmp_path: Path) -> None:
    latest = one_colour(tmp_path / "a.tif", 10, 4, 2022)
    whole = [one_colour(tmp_path / "b.tif", 20, 0, 2018), one_colour(tmp_path / "c.tif", 30, 0, 2019)]
    unknown = one_colour(tmp_path / "d.tif", 40, 0)
    found = outcomes([latest, *whole, unknown], rows=3)
    assert [grey_of(row) for row in found] == [30, 30, 30]
    assert [row["empty_share"] for row in found] == [0, 0, 0]
    assert found[0]["captured_at"] == datetime(2019, 5, 1, tzinfo=UTC)


def test_without_a_whole_chip_the_first_within_the_limit_counts(tmp_path: Path) -> None:
    rasters = [one_colour(tmp_path / f"{n}.tif", n, rows, 2020 - n) for n, rows in ((1, 30), (2, 5), (3, 1))]
    (found,) = outcomes(rasters)
    assert (grey_of(found), found["empty_share"]) == (2, pytest.approx(0.05))
    (found,) = outcomes(rasters, most_empty=0.01)
    assert (grey_of(found), found["empty_share"]) == (3, pytest.approx(0.01))


def test_a_position_without_a_chip_within_the_limit_is_told_its_least_share(tmp_path: Path) -> None:
    rasters = [one_colour(tmp_path / f"{n}.tif", n, rows, 2020 - n) for n, rows in ((1, 30), (2, 7), (3, 12))]
    (found,) = outcomes(rasters)
    assert found["error_class"] == "empty" and "chip" not in found
    assert found["message"] == "7.0 % of its pixels are empty, in the best of 3 rasters"
    (alone,) = outcomes(rasters[:1])
    assert alone["message"] == "30.0 % of its pixels are empty"


def test_a_raster_that_changed_is_told_and_no_other_takes_its_place(tmp_path: Path) -> None:
    rasters = [one_colour(tmp_path / f"{n}.tif", n, 0, 2020 - n) for n in (1, 2)]
    (tmp_path / "1.tif").write_bytes(b"something else")
    (found,) = outcomes(rasters)
    assert found["error_class"] == "changed" and "1.tif" in found["message"]


def test_the_order_is_date_angle_resolution_priority_and_address(tmp_path: Path) -> None:
    base = one_colour(tmp_path / "a.tif", 1, 0)
    taken = [datetime(year, 1, 1, tzinfo=UTC) for year in (2019, 1965)]
    ordered = [
        replace(base, captured_at=taken[0], off_nadir_deg=5.0, ground_m=0.5),
        replace(base, captured_at=taken[0], off_nadir_deg=25.0, ground_m=0.3),
        replace(base, captured_at=taken[0], ground_m=0.3),
        replace(base, captured_at=taken[1], off_nadir_deg=0.0, ground_m=0.1),
        replace(base, off_nadir_deg=1.0, ground_m=0.3),
        replace(base, ground_m=0.3, priority=-1, uri="z"),
        replace(base, ground_m=0.3, priority=2, uri="a"),
        replace(base, ground_m=0.3, priority=2, uri="b"),
        replace(base, ground_m=0.4, priority=-5),
    ]
    mixed = [ordered[k] for k in np.random.default_rng(0).permutation(len(ordered))]
    assert sorted(mixed, key=lambda raster: raster.preference) == ordered


def test_more_rows_than_are_tried_together_all_have_an_outcome(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "_CUT_ROWS", 4)
    found = outcomes([one_colour(tmp_path / "a.tif", 9, 2, 2020), one_colour(tmp_path / "b.tif", 8, 1)], rows=11)
    assert sorted(row["image_id"] for row in found) == sorted(map(str, range(11)))
    assert {grey_of(row) for row in found} == {9}


def test_blocks_are_decoded_once_but_for_what_bands_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the bytes that the process reads, with a cache that holds a thirtieth of the raster."""
    monkeypatch.setattr(plan, "_BAND_PX", 512)
    monkeypatch.setattr(plan, "CACHE_BYTES", 0)
    rng = np.random.default_rng(0)
    values = rng.integers(1, 255, (3, 2048, 6016), np.uint8)
    transform = Affine(1, 0, 5e5, 0, -1, 5e6)
    file = write_strip(tmp_path / "s.tif", values, transform, "EPSG:32633", tiled=True, blockxsize=128, blockysize=128,
                       interleave="pixel")  # fmt: skip
    raster = replace(strip(file), block=(128, 128))
    x, y = 5e5 + rng.uniform(60, 5950, 1200), 5e6 - rng.uniform(60, 1980, 1200)
    lon, lat = Transformer.from_crs("EPSG:32633", WGS84, always_xy=True).transform(x, y)
    cells = np.unique(cell_keys(lat, lon))
    finder = RasterFinder([raster], CandidateIndex.from_pairs(cells, np.zeros_like(cells)))
    found = finder.find(lat, lon, np.full(1200, -1))
    config = ChipsConfig.model_validate(
        {"name": "n", "images": {"root": "t"}, "rasters": {"root": "t", "strips": ["s"]}, "output": "t",
         "views": [{"size_px": 100, "resolution_m": 1.0}], "format": "jpeg"}
    )  # fmt: skip
    key = {"source": "s", "uri": None, "view": 0, "raster": 0}
    rows = [{**key, "image_id": str(n), "lat": lat[n], "lon": lon[n]} for n in range(1200)]
    bands = found.row // finder.band_rows[0]

    def read_bytes(order: Any) -> int:
        before = rchar()
        with gdal_environment(), rasterio.Env(GDAL_CACHEMAX=plan.cache_bytes([raster], config.views)):
            assert sum("chip" in row for row in job._Cutter(finder, config).cut(iter([rows[n] for n in order]))) == 1200
        return rchar() - before

    assert plan.cache_bytes([raster], config.views) < file.stat().st_size / 20
    assert read_bytes(np.lexsort((found.column, bands))) < 1.45 * file.stat().st_size  # (512 + 100 + 128) / 512
    assert read_bytes(np.arange(1200)) > 2 * file.stat().st_size  # as they come, neighbours find nothing in the cache


def rchar() -> int:
    """Bytes that this process has read by system calls."""
    return int(Path("/proc/self/io").read_text().split()[1])
