"""Compare orders of points: when points are divided into tasks, how many blocks do several tasks decode?"""

from __future__ import annotations

import sys
from functools import partial

import numpy as np

from benchmarks.fabricate import clustered_points
from benchmarks.maps import cataloged, files
from benchmarks.timing import interleaved, one_core
from geosieve.geo import s2
from geosieve.geo.arrays import F8, I8
from geosieve.rasters.files import RasterFile
from geosieve.rasters.sampling import gdal_environment, pixels, read_pixels

POINTS, TASKS = 4_700_000, 16


def blocks(file: RasterFile, lat: F8, lon: F8) -> I8:
    """Number of the raster block that contains each point (degrees, shape (n,))."""
    row, column, _ = pixels(file, lat, lon)
    return row // file.block_height * -(-file.width // file.block_width) + column // file.block_width


def orders(first: RasterFile, lat: F8, lon: F8) -> dict[str, I8]:
    """The orders to compare, each as indices of the points."""
    band = np.floor((90.0 - lat) / (512 / 120))
    return {
        "S2 order": np.argsort(s2.cell_ids(lat, lon)),
        "latitude": np.argsort(-lat),
        "latitude bands, longitude": np.lexsort((lon, band)),  # geosieve.labels.label._shuffle_key
        "blocks of the first raster": np.argsort(blocks(first, lat, lon), kind="stable"),
    }


def decoded(file: RasterFile, lat: F8, lon: F8, tasks: list[I8]) -> float:
    """Blocks decoded by all tasks together, divided by the number of different blocks. 1 is best."""
    block = blocks(file, lat, lon)
    return sum(np.unique(block[task]).size for task in tasks) / np.unique(block).size


def read_all(file: RasterFile, lat: F8, lon: F8, tasks: list[I8]) -> None:
    """Read the pixels of all tasks, one after the other."""
    with gdal_environment():
        for task in tasks:
            row, column, _ = pixels(file, lat[task], lon[task])
            read_pixels(file, row, column)


def main() -> int:
    """Print a table. There is no bar; return exit code 0."""
    one_core()
    lat, lon = clustered_points(POINTS, seed=7)
    rasters = {name: cataloged(path) for name, path in files().items()}
    candidates = orders(rasters["tiles"], lat, lon)
    split = {name: np.array_split(order, TASKS) for name, order in candidates.items()}
    print(f"{POINTS:,} points in {TASKS} equal tasks; seconds of pixels + read_pixels on one core, all tasks")
    print(f"{'':28}" + "".join(f"{name + ' decoded':>16}{name + ' s':>10}" for name in rasters) + f"{'sum s':>8}")
    seconds, factor = {}, {}
    for raster, file in rasters.items():
        seconds[raster], _ = interleaved({name: partial(read_all, file, lat, lon, t) for name, t in split.items()})
        factor[raster] = {name: decoded(file, lat, lon, tasks) for name, tasks in split.items()}
    for name in split:
        cells = "".join(f"{factor[raster][name]:15.2f}x{seconds[raster][name]:10.2f}" for raster in rasters)
        print(f"{name:28}{cells}{sum(seconds[raster][name] for raster in rasters):8.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
