"""Rasters that chips are cut from, for tests without tables."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import rasterio
from rasterio.transform import Affine

from geosieve.overhead.chips.sources import ChipRaster, utm_code, utm_wkt
from geosieve.rasters.catalog import RasterSource, catalog_file
from geosieve.rasters.files import RasterFile
from geosieve.rasters.footprint import place
from geosieve.rasters.georeference import PixelGrid

WGS84 = "EPSG:4326"


def strip(path: Path, captured_at: datetime | None = None) -> ChipRaster:
    """A prepared strip: RGB of 8 bits in UTM."""
    with rasterio.open(path) as file:
        epsg, transform, width, height = file.crs.to_epsg(), file.transform, file.width, file.height
    grid = PixelGrid(utm_wkt(epsg), transform, width, height)
    outline = place(grid.crs_wkt, transform, width, height)[1].wkb
    return ChipRaster("s", str(path), path.stem, grid, epsg, (512, 512), outline, captured_at, None, transform.a, 0,
                      path.stat().st_size, None, (1, 2, 3), None)  # fmt: skip


def catalogued(path: Path, bands: Any = None, ranges: Any = None) -> ChipRaster:
    """A raster as catalog_rasters describes it."""
    row = catalog_file(str(path), RasterSource(collection="c", uri=str(path)))
    facts = {name: row[name] for name in RasterFile.__dataclass_fields__}
    file = RasterFile(**{**facts, "transform": tuple(row["transform"][name] for name in "abcdef")})
    grid = PixelGrid(file.crs_wkt, Affine(*file.transform), file.width, file.height)
    ranges = None if ranges is None else tuple(ranges) * (3 // len(ranges))
    return ChipRaster("c", file.uri, None, grid, utm_code(file.crs_wkt), (file.block_height, file.block_width),
                      row["footprint"], None, None, 1.0, 0, None, file, bands, ranges)  # fmt: skip
