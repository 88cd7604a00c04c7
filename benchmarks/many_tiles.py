"""A map of 100,000 files against one of 1,000: bytes per file in a worker, seconds per chunk of points, the join."""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import rasterio
import shapely
from rasterio.transform import from_origin

from benchmarks import FOLDER
from benchmarks.timing import bar, interleaved, one_core
from geosieve.geo.arrays import F8
from geosieve.rasters.candidates import CandidateIndex, every_cell, join_outlines
from geosieve.rasters.catalog import RasterSource, catalog_file
from geosieve.rasters.files import CatalogedFile, RasterFile, file_table
from geosieve.rasters.mosaic import Mosaic, MosaicReader
from geosieve.runtime.session import spark_session

FEW, MANY, NEAR, POINTS = 1_000, 100_000, 50, 300_000
SIDE_DEG, SIDE_PX = 0.5, 64


def near_tiles() -> list[CatalogedFile]:
    """Write 50 tiles of half a degree in a row, eastwards from 0° E and just south of 50° N, and catalogue them."""
    folder = FOLDER.resolve() / "near_tiles"
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    profile = {"driver": "GTiff", "width": SIDE_PX, "height": SIDE_PX, "count": 1, "dtype": "uint8", "crs": "EPSG:4326"}
    return [_tile(folder / f"{n:03d}.tif", n, rng, profile) for n in range(NEAR)]


def _tile(path: Path, n: int, rng: np.random.Generator, profile: dict[str, object]) -> CatalogedFile:
    size = SIDE_DEG / SIDE_PX
    with rasterio.open(path, "w", **profile, transform=from_origin(SIDE_DEG * n, 50, size, size)) as raster:
        raster.write(rng.integers(1, 9, (SIDE_PX, SIDE_PX), np.uint8), 1)
    row = catalog_file(str(path), RasterSource(collection="benchmark", uri=str(path)))
    facts = {name: row[name] for name in RasterFile.__dataclass_fields__}
    file = RasterFile(**{**facts, "transform": tuple(row["transform"].values())})
    return CatalogedFile(file, row["footprint"], None, None)


def collection(near: list[CatalogedFile], n: int) -> Mosaic:
    """A map of n files: the near tiles, and others at random places, of which only the catalogue entries exist.

    No point needs the others.
    """
    rng = np.random.default_rng(1)
    files = list(near)
    first = near[0]
    for k in range(n - len(near)):
        west, south = rng.uniform(-180, 179), rng.uniform(-80, 40)
        place = (SIDE_DEG / SIDE_PX, 0.0, west, 0.0, -SIDE_DEG / SIDE_PX, south + SIDE_DEG)
        name, checksum = f"tile_{k:06d}.tif", hashlib.sha256(str(k).encode()).hexdigest()
        file = replace(first.file, uri=f"s3a://bucket/v1/{name}", transform=place, content_sha256=checksum)
        outline = shapely.to_wkb(shapely.box(west, south, west + SIDE_DEG, south + SIDE_DEG))
        files.append(CatalogedFile(file, outline, None, None))
    return Mosaic.of(file_table(files))


def chunk(reader: MosaicReader, index: CandidateIndex, lat: F8, lon: F8) -> F8:
    """Values of the map at points (degrees, shape (n,)), as a worker reads them."""
    return reader.values(lat, lon, index.candidates(lat, lon))[0]


def main() -> int:
    """Return exit code 1 if a bar is missed."""
    os.environ["PYSPARK_SUBMIT_ARGS"] = "--master local[2] --driver-memory 2g pyspark-shell"
    near = near_tiles()
    maps = {n: collection(near, n) for n in (FEW, MANY)}
    indices = {}
    with spark_session("many_tiles", local=False) as spark:
        for n, rasters in maps.items():
            start = time.perf_counter()
            indices[n] = join_outlines(spark, every_cell(), {"map": rasters.outlines()})["map"]
            seconds = time.perf_counter() - start
            pairs = indices[n].items.size
            print(
                f"  join of {n:,} outlines with every cell of the Earth: {seconds:.1f} s, {pairs:,} pairs", flush=True
            )
    one_core()
    rng = np.random.default_rng(2)
    lat, lon = rng.uniform(50 - SIDE_DEG, 50, POINTS), rng.uniform(0, SIDE_DEG * NEAR, POINTS)
    packed = {n: pickle.dumps(rasters.reader) for n, rasters in maps.items()}
    held = {n: pickle.loads(content) for n, content in packed.items()}  # as in a worker
    print(f"  pickled map of {FEW:,} files {len(packed[FEW]):,} bytes, of {MANY:,} files {len(packed[MANY]):,} bytes")
    met = bar("a file in a worker", len(packed[MANY]) / MANY, 400, unit="bytes")
    works = {f"{n:,}": partial(chunk, reader, indices[n], lat, lon) for n, reader in held.items()}
    seconds, values = interleaved(works)
    few, many = works
    assert np.isfinite(values[few]).all() and np.array_equal(values[few], values[many])
    print(f"  a chunk of {POINTS:,} points: " + ", ".join(f"{n} files {s:.2f} s" for n, s in seconds.items()))
    met &= bar("time of a chunk for a hundred times the files", seconds[many] / seconds[few], 1.3)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
