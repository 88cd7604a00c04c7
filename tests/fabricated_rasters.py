"""Small seeded rasters with a true CRS, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import Affine, from_origin

from geosieve.rasters.catalog import RasterSource, catalog_file
from geosieve.rasters.files import CatalogedFile, RasterFile


def write_raster(
    path: Path, values: NDArray[Any], transform: Affine, crs: str | None = "EPSG:4326", **options: Any
) -> Path:
    """A one-band GeoTIFF of `values` (rows, columns)."""
    profile = {"driver": "GTiff", "height": values.shape[0], "width": values.shape[1], "count": 1}
    profile |= {"dtype": values.dtype.name, "crs": crs, "transform": transform, "compress": "deflate", **options}
    with rasterio.open(path, "w", **profile) as raster:
        raster.write(values, 1)
    return path


def world(path: Path, degrees: float = 1.0, seed: int = 0, high: int = 250, **options: Any) -> Path:
    """A global uint8 raster of random values from 1 to high - 1."""
    values = np.random.default_rng(seed).integers(1, high, (round(180 / degrees), round(360 / degrees)), np.uint8)
    return write_raster(path, values, from_origin(-180, 90, degrees, degrees), **options)


def cataloged(path: Path, **source: Any) -> CatalogedFile:
    """What the catalogue says of a file."""
    row = catalog_file(str(path), RasterSource(collection="test", uri=str(path), **source))
    names = [name for name in RasterFile.__dataclass_fields__ if name != "transform"]
    file = RasterFile(**{name: row[name] for name in names}, transform=tuple(row["transform"].values()))
    return CatalogedFile(file, row["footprint"], row.get("positive_min"), row.get("value_max"))
