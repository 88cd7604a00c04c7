"""A raster's content checksum: of its pixels and their validity, whatever wrote the file and however it was read."""

from __future__ import annotations

import hashlib
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from blake3 import blake3
from fabricated_rasters import cataloged, write_raster
from numpy.typing import NDArray
from rasterio.transform import from_origin

from geosieve.rasters import content

NORTH_WEST = from_origin(0, 80, 0.01, 0.01)


def checksum(path: Path, **source: Any) -> str:
    return cataloged(path, **source).file.content_sha256


def by_hand(values: NDArray[Any], rule: str | None = None) -> str:
    """The documented definition: BLAKE3 of the bytes of each block of 1024 × 4096, SHA-256 of the facts and these."""
    rows, columns = values.shape
    values = values.astype(values.dtype.newbyteorder("<"))
    corners = itertools.product(range(0, rows, 1024), range(0, columns, 4096))
    blocks = b"".join(blake3(values[i : i + 1024, j : j + 4096].tobytes()).digest() for i, j in corners)
    facts = ["raster content 2", "full", values.dtype.name, [rows, columns], rule, False]
    return hashlib.sha256(json.dumps(facts).encode() + b"\0" + blocks).hexdigest()


@pytest.fixture(scope="module")
def values() -> NDArray[np.int16]:
    """Noise beside stretches that repeat from row to row, as in maps; two by three blocks."""
    rng = np.random.default_rng(0)
    grid = rng.integers(-3, 4, (2100, 4500), np.int16)
    grid[:, 1000:3000] = 7
    grid[500:700] = grid[500]
    return grid


def test_it_is_what_the_definition_says(tmp_path: Path, values: NDArray[np.int16]) -> None:
    assert checksum(write_raster(tmp_path / "a.tif", values, NORTH_WEST)) == by_hand(values)
    small = values[:3, :5].astype(np.float64)
    nodata = np.float64(-2).tobytes().hex()
    assert checksum(write_raster(tmp_path / "b.tif", small, NORTH_WEST, nodata=-2)) == by_hand(small, nodata)


@pytest.mark.parametrize(
    "layout",
    [
        {"blockysize": 1, "compress": None},
        {"blockysize": 77, "compress": "lzw", "predictor": 2},
        {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "zstd"},
        {"tiled": True, "blockxsize": 48, "blockysize": 1360},
        {"driver": "ENVI"},
        {"endianness": "BIG"},
    ],
    ids=str,
)
def test_it_does_not_depend_on_format_tiling_or_the_size_of_reads(
    tmp_path: Path, values: NDArray[np.int16], layout: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content, "_READ_PIXELS", 200_000)
    monkeypatch.setattr(content, "_PART_PIXELS", 1)
    if layout.get("driver") == "ENVI":
        path = tmp_path / "a.img"
        profile = {"height": 2100, "width": 4500, "count": 1, "dtype": "int16", "crs": "EPSG:4326"}
        with rasterio.open(path, "w", driver="ENVI", transform=NORTH_WEST, **profile) as dataset:
            dataset.write(values, 1)
    else:
        path = write_raster(tmp_path / "a.tif", values, NORTH_WEST, **layout)
    assert checksum(path) == by_hand(values)


def test_one_changed_pixel_changes_it(tmp_path: Path, values: NDArray[np.int16]) -> None:
    before = checksum(write_raster(tmp_path / "a.tif", values, NORTH_WEST))
    for row, column in ((0, 0), (600, 4499), (1024, 2000), (2099, 4499)):
        changed = values.copy()
        changed[row, column] += 1
        assert checksum(write_raster(tmp_path / "b.tif", changed, NORTH_WEST)) != before


def test_statistics_come_from_the_same_pass(tmp_path: Path, values: NDArray[np.int16]) -> None:
    path = write_raster(tmp_path / "a.tif", values, NORTH_WEST, nodata=-3)
    described = cataloged(path, statistics=True)
    assert (described.positive_min, described.value_max) == (1, 7)
    assert described.file.content_sha256 == checksum(path)


def test_a_mask_is_part_of_it_and_what_it_hides_is_not(tmp_path: Path) -> None:
    grid = np.random.default_rng(1).integers(0, 9, (40, 50), np.uint8)
    mask = np.random.default_rng(2).random((40, 50)) < 0.5
    found = {}
    for name, hidden, shown in (("a", 1, mask), ("b", 2, mask), ("c", 1, ~mask)):
        path = write_raster(tmp_path / f"{name}.tif", np.where(mask, grid, hidden).astype(np.uint8), NORTH_WEST)
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as dataset:
            dataset.write_mask(shown)
        found[name] = checksum(path)
    assert found["a"] == found["b"] != found["c"]


def test_a_sample_sees_the_first_and_the_last_block_and_is_not_taken_for_the_whole(
    tmp_path: Path, values: NDArray[np.int16]
) -> None:
    path = write_raster(tmp_path / "a.tif", values, NORTH_WEST)
    before = checksum(path, checksum="sampled")
    assert before != checksum(path)
    for row, column in ((0, 0), (2099, 4499)):
        changed = values.copy()
        changed[row, column] += 1
        assert checksum(write_raster(tmp_path / "b.tif", changed, NORTH_WEST), checksum="sampled") != before
