"""Checksum of a raster's content against plain decoding of the same blocks; two processes on two cores."""

from __future__ import annotations

import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from time import monotonic

import rasterio

from benchmarks.maps import files
from benchmarks.timing import bar, interleaved
from geosieve.rasters.content import PixelFacts, parts, read_part, windows
from geosieve.rasters.sampling import gdal_environment, open_raster

PROCESSES = 2


def decode(path: Path, first_row: int, last_row: int) -> int:
    """Read the blocks of a part of the raster and discard them. Return the number of bytes."""
    n_bytes = 0
    with gdal_environment(), open_raster(str(path)) as dataset:
        for _, row_windows in windows(dataset, 1, first_row, last_row):
            for window in row_windows:
                n_bytes += dataset.read(1, window=window).nbytes
    return n_bytes


def checksum(path: Path, first_row: int, last_row: int) -> int:
    """Compute the digests of a part as `catalog_rasters` does. Return their number of bytes."""
    with gdal_environment(), open_raster(str(path)) as dataset:
        pixels = PixelFacts(1, dataset.nodata, False, 1.0, 0.0)
        return len(read_part(dataset, pixels, first_row, statistics=False)["digests"])


def main() -> int:
    """Return exit code 1 if a bar is missed."""
    done = True
    with ProcessPoolExecutor(PROCESSES) as pool:
        for name, path in files().items():
            with rasterio.open(path) as dataset:
                height, firsts = dataset.height, parts(dataset.height, dataset.width)
            lasts = [min(first + firsts.step, height) for first in firsts]
            works = {
                work.__name__: partial(lambda w, p, f, e: sum(pool.map(partial(w, p), f, e)), work, path, firsts, lasts)
                for work in (decode, checksum)
            }
            seconds, amounts = interleaved(works, monotonic)
            rate = amounts["decode"] / seconds["decode"] / 1e6
            print(f"{name}: decoded in {seconds['decode']:.2f} s ({rate:,.0f} MB/s), {len(firsts)} parts")
            ratio = seconds["decode"] / seconds["checksum"]
            done &= bar("rate of the checksum over that of decoding", ratio, 0.8, at_least=True)
    return 0 if done else 1


if __name__ == "__main__":
    sys.exit(main())
