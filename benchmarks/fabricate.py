"""Synthetic inputs for the benchmarks, made from seeds: LandScan-like rasters and clustered points."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import from_origin
from rasterio.windows import Window
from scipy.ndimage import zoom

FOLDER = Path("build/benchmarks")
ROWS, COLUMNS, TILE = 21600, 43200, 512
NODATA = -2147483647


def landscan_like(seed: int) -> Path:
    """A 30-arc-second int32 raster of synthetic population counts: 43200 × 21600, deflate, tiles of 512, about 1 GB.

    Like the real product it has no data on oceans (here 45 %) and counts whose spread is
    log-normal with clusters at several scales, so that blocks compress as unevenly as real ones.
    """
    path = FOLDER / f"landscan_like_{seed}.tif"
    if path.exists():
        return path
    FOLDER.mkdir(parents=True, exist_ok=True)
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
    """Unit-variance noise of a given coarseness on a 2700 × 5400 grid."""
    noise = rng.standard_normal((rows, columns)).astype(np.float32)
    field = zoom(noise, (2700 / rows, 5400 / columns), order=1)
    return (field / field.std()).astype(np.float32)


def _band(field: NDArray[np.float32], top: int, rows: int) -> NDArray[np.float32]:
    """Rows of the full raster, repeated from the coarse field."""
    index = np.arange(top, top + rows) // (ROWS // field.shape[0])
    return np.repeat(field[index], COLUMNS // field.shape[1], axis=1)


def clustered_points(n: int, seed: int, centres: int = 20_000) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Latitudes and longitudes of n synthetic photographs, shuffled: towns of unequal size, mostly in the north.

    Cluster sizes follow Zipf's law, as photographs of cities do; positions scatter by some kilometres around them.
    """
    rng = np.random.default_rng(seed)
    lat0 = np.clip(rng.normal(35, 20, centres), -60, 75)
    lon0 = rng.uniform(-180, 180, centres)
    weight = 1.0 / np.arange(1, centres + 1) ** 0.8
    town = rng.choice(centres, n, p=weight / weight.sum())
    lat = np.clip(lat0[town] + rng.normal(0, 0.08, n), -90, 90)
    lon = (lon0[town] + rng.normal(0, 0.1, n) + 180) % 360 - 180
    return lat, lon
