"""Values of a raster at points, one core: ours, rasterio.sample point by point, and the plain loop over blocks."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import numpy as np
import rasterio
from geosieve.rasters.sampling import gdal_environment, pixels, read_pixels
from numpy.typing import NDArray

from benchmarks.fabricate import clustered_points
from benchmarks.maps import cataloged, files, plain_loop
from benchmarks.timing import bar, interleaved, one_core

F8 = NDArray[np.float64]
POINTS = (1_000_000, 4_700_000)
SAMPLE_POINTS = 5_000  # rasterio.sample is too slow for all of them; its rate does not depend on their number


def ours(path: Path, lat: F8, lon: F8) -> NDArray[np.generic]:
    file = cataloged(path)
    with gdal_environment():
        row, column, inside = pixels(file, lat, lon)
        assert inside.all()
        return read_pixels(file, row, column)[0]


def sample(path: Path, lat: F8, lon: F8) -> NDArray[np.generic]:
    with rasterio.open(path) as dataset:
        return np.array([value[0] for value in dataset.sample(np.column_stack([lon, lat]))])


def main() -> int:
    """Exit code 1 when a bar is missed."""
    one_core()
    done = True
    for name, path in files().items():
        for n in POINTS:
            lat, lon = clustered_points(n, seed=7)
            few = slice(SAMPLE_POINTS)
            seconds, values = interleaved(
                {
                    "ours": partial(ours, path, lat, lon),
                    "plain loop": partial(plain_loop, path, lat, lon),
                    "rasterio.sample": partial(sample, path, lat[few], lon[few]),
                }
            )
            assert np.array_equal(values["ours"], values["plain loop"])
            assert np.array_equal(values["ours"][few], values["rasterio.sample"])
            rate = {key: (SAMPLE_POINTS if key == "rasterio.sample" else n) / s for key, s in seconds.items()}
            print(f"{name}, {n:,} points: " + ", ".join(f"{key} {r:,.0f}/s" for key, r in rate.items()))
            print(f"  ours {seconds['ours']:.2f} s, plain loop {seconds['plain loop']:.2f} s")
            done &= bar("rate over rasterio.sample", rate["ours"] / rate["rasterio.sample"], 100, at_least=True)
            done &= bar("time over the plain loop", seconds["ours"] / seconds["plain loop"], 1.3)
    return 0 if done else 1


if __name__ == "__main__":
    sys.exit(main())
