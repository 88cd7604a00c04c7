"""Synthetic inputs for the benchmarks, reproducible from seeds: LandScan-like rasters and clustered points."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import from_origin
from rasterio.windows import Window
from scipy.ndimage import zoom

from benchmarks import FOLDER

ROWS, COLUMNS, TILE = 21600, 43200, 512
NODATA = -2147483647


def landscan_like(seed: int) -> Path:
    """Path of a 30 arc-second int32 raster of synthetic population counts; made unless it exists.

    43200 × 21600 pixels, deflate, tiles of 512, about 1 GB. Like LandScan it has no data on oceans (here 45 %). Counts
    are log-normal with clusters at several scales, so that blocks compress as unevenly as those of the real product.
    """
    path = FOLDER / f"landscan_like_{seed}.tif"
    if path.exists():
        return path
    rng = np.random.default_rng(seed)
    land = _smooth(rng, 24, 48) + 0.5 * _smooth(rng, 96, 192)
    land -= np.quantile(land, 0.45)
    density = 2.0 * _smooth(rng, 48, 96) + 1.5 * _smooth(rng, 384, 768)
    part = path.with_suffix(".part")
    profile = {
        "driver": "GTiff", "width": COLUMNS, "height": ROWS, "count": 1, "dtype": "int32", "nodata": NODATA,
        "crs": "EPSG:4326", "transform": from_origin(-180, 90, 1 / 120, 1 / 120), "tiled": True,
        "blockxsize": TILE, "blockysize": TILE, "compress": "deflate", "zlevel": 6, "num_threads": 2,
    }  # fmt: skip
    with rasterio.open(part, "w", **profile) as raster:
        for top in range(0, ROWS, TILE):
            rows = min(TILE, ROWS - top)
            on_land = _band(land, top, rows) > 0
            mean = np.exp(1.2 * _band(density, top, rows) + 6.0)
            counts = (mean * rng.standard_exponential((rows, COLUMNS), dtype=np.float32)).astype(np.int32)
            raster.write(np.where(on_land, counts, NODATA), 1, window=Window(0, top, COLUMNS, rows))
    part.rename(path)
    return path


def _smooth(rng: np.random.Generator, rows: int, columns: int) -> NDArray[np.float32]:
    """Noise of unit variance on a 2700 × 5400 grid, interpolated from `rows` × `columns` random values."""
    noise = rng.standard_normal((rows, columns)).astype(np.float32)
    field = zoom(noise, (2700 / rows, 5400 / columns), order=1)
    return (field / field.std()).astype(np.float32)


def _band(field: NDArray[np.float32], top: int, rows: int) -> NDArray[np.float32]:
    """`rows` rows of the full raster from row `top` on; values of the coarse field are repeated."""
    index = np.arange(top, top + rows) // (ROWS // field.shape[0])
    return np.repeat(field[index], COLUMNS // field.shape[1], axis=1)


def clustered_points(n: int, seed: int, centres: int = 20_000) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Latitudes and longitudes (degrees, shape (n,)) of n synthetic photographs in random order.

    They scatter by some kilometres around towns, most of which are in the northern hemisphere. Town sizes follow a
    power law, like the numbers of photographs of real cities.
    """
    rng = np.random.default_rng(seed)
    lat0 = np.clip(rng.normal(35, 20, centres), -60, 75)
    lon0 = rng.uniform(-180, 180, centres)
    weight = 1.0 / np.arange(1, centres + 1) ** 0.8
    town = rng.choice(centres, n, p=weight / weight.sum())
    lat = np.clip(lat0[town] + rng.normal(0, 0.08, n), -90, 90)
    lon = (lon0[town] + rng.normal(0, 0.1, n) + 180) % 360 - 180
    return lat, lon
