"""`catalog_rasters` of 10,000 small tiles by spark-submit on two cores, against a plain loop that only reads them."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin

from benchmarks import FOLDER
from benchmarks.label_job import RUN, job
from benchmarks.timing import bar

TILES, SIDE = 10_000, 64


def tiles() -> Path:
    """A folder of 10,000 GeoTIFF files of 64 × 64 pixels in UTM zones 31 to 40. Later runs use it again."""
    folder = FOLDER.resolve() / "small_tiles"
    if folder.exists():
        return folder
    part = folder.with_name("small_tiles.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    rng = np.random.default_rng(0)
    profile = {"driver": "GTiff", "width": SIDE, "height": SIDE, "count": 1, "dtype": "uint8", "compress": "deflate"}
    for n in range(TILES):
        zone, row, column = n // 1000, n % 1000 // 20, n % 20
        place = {
            "crs": f"EPSG:{32631 + zone}",
            "transform": from_origin(300_000 + 640 * column, 7e6 - 640 * row, 10, 10),
        }
        with rasterio.open(part / f"{n:05d}.tif", "w", **profile, **place) as raster:
            raster.write(rng.integers(0, 9, (SIDE, SIDE), np.uint8), 1)
    part.rename(folder)
    return folder


def opened(folder: Path) -> float:
    """Seconds in which one process opens every tile and reads its pixels."""
    start = time.perf_counter()
    for path in folder.iterdir():
        with rasterio.open(path) as dataset:
            dataset.read(1)
    return time.perf_counter() - start


def main() -> int:
    """Return exit code 1 if the bar is missed."""
    folder = tiles()
    output = FOLDER.resolve() / "small_tiles_catalog"
    shutil.rmtree(output, ignore_errors=True)
    start = time.perf_counter()
    try:
        report, used = job("catalog_rasters", {"rasters": {"collection": "tiles", "uri": str(folder)},
                                               "output": str(output)}, RUN)  # fmt: skip
        wall = time.perf_counter() - start
    finally:
        shutil.rmtree(output, ignore_errors=True)
    assert report["rows_out"] == TILES
    print("  stages: " + ", ".join(f"{stage} {s:.1f}" for stage, s in report["seconds"].items()) + " s")
    plain = opened(folder)
    print(
        f"  opening and reading all in one process {plain:.1f} s; the job's processors {sum(used.cpu.values()):.1f} s"
    )
    print(f"  job over half of that, its floor on two cores: {2 * wall / plain:.1f} x")
    return 0 if bar(f"catalog_rasters of {TILES:,} tiles", wall, 60.0, unit="s") else 1


if __name__ == "__main__":
    sys.exit(main())
