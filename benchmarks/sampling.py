"""Values of a raster at points, one core: geosieve, rasterio.sample point by point, and the plain loop over blocks."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray

from benchmarks.fabricate import clustered_points
from benchmarks.maps import cataloged, files, plain_loop
from benchmarks.timing import bar, interleaved, one_core
from geosieve.geo.arrays import F8
from geosieve.rasters.sampling import gdal_environment, pixels, read_pixels

POINTS = (1_000_000, 4_700_000)
# rasterio.sample is too slow for all points. With few points, nearly every point decodes another block. With more
# points, many blocks are already in GDAL's cache (5 % of the machine's memory).
FEW, MORE = 5_000, 100_000


def ours(path: Path, lat: F8, lon: F8) -> NDArray[np.generic]:
    """Values by geosieve at points in degrees, shape (n,)."""
    file = cataloged(path)
    with gdal_environment():
        row, column, inside = pixels(file, lat, lon)
        assert inside.all()
        return read_pixels(file, row, column)[0]


def sample(path: Path, lat: F8, lon: F8) -> NDArray[np.generic]:
    """The same by rasterio.sample."""
    with rasterio.open(path) as dataset:
        return np.array([value[0] for value in dataset.sample(np.column_stack([lon, lat]))])


def main() -> int:
    """Return exit code 1 if a bar is missed."""
    one_core()
    done = True
    for name, path in files().items():
        cataloged(path)  # fills the cache of entries before the timing
        for n in POINTS:
            lat, lon = clustered_points(n, seed=7)
            counts = {"ours": n, "plain loop": n, f"sample of {FEW:,}": FEW, f"sample of {MORE:,}": MORE}
            seconds, values = interleaved(
                {
                    key: partial(work, path, lat[:k], lon[:k])
                    for work, (key, k) in zip((ours, plain_loop, sample, sample), counts.items(), strict=True)
                }
            )
            assert all(np.array_equal(values["ours"][:k], values[key]) for key, k in counts.items())
            print(f"{name}, {n:,} points: ours {seconds['ours']:.2f} s, plain loop {seconds['plain loop']:.2f} s")
            rate = {key: k / seconds[key] for key, k in counts.items()}
            print("  points/s: " + ", ".join(f"{key} {r:,.0f}" for key, r in rate.items()))
            over = {key: rate["ours"] / rate[key] for key in counts}
            few, more = list(counts)[2:]
            done &= bar(f"rate over rasterio's {few}", over[few], 100, at_least=True)
            print(f"  rate over rasterio's {more}, when its cache is filled: {over[more]:,.0f} x, no bar")
            done &= bar("time over the plain loop", seconds["ours"] / seconds["plain loop"], 1.3)
    return 0 if done else 1


if __name__ == "__main__":
    sys.exit(main())
