"""Rows of the raster catalogue, as objects and as Arrow columns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

import pyarrow as pa


@dataclass(frozen=True)
class RasterFile:
    """What sampling needs to know about a raster file: one row of `raster_catalog`."""

    uri: str
    driver: str
    band: int
    priority: int
    crs_wkt: str
    transform: tuple[float, float, float, float, float, float]  # a, b, c, d, e, f
    width: int
    height: int
    scale: float  # value in units = scale · stored value + offset
    offset: float
    nodata: float | None  # of stored values; None where a mask decides
    mask: str  # none | mask | alpha
    block_height: int
    block_width: int
    is_global: bool
    header_sha256: str
    content_sha256: str  # of the pixels' values and validity, see geosieve.rasters.content


@dataclass(frozen=True)
class CatalogedFile:
    """A raster file with its footprint (WKB, lon-lat degrees) and statistics from the catalogue."""

    file: RasterFile
    footprint: bytes
    positive_min: float | None
    value_max: float | None


_COLUMN_TYPES = {
    **{"str": pa.string(), "int": pa.int64(), "float": pa.float64(), "float | None": pa.float64()},
    **{"bool": pa.bool_(), "bytes": pa.binary(), "str | None": pa.string()},
    "tuple[float, float, float, float, float, float]": pa.list_(pa.float64(), 6),
}
FILE_COLUMNS = pa.schema([(field.name, _COLUMN_TYPES[str(field.type)]) for field in fields(RasterFile)])
"""Arrow schema with one column per field of `RasterFile`."""
CATALOGED_COLUMNS = pa.schema(
    [*FILE_COLUMNS, *((f.name, _COLUMN_TYPES[str(f.type)]) for f in fields(CatalogedFile) if f.name != "file")]
)
"""Arrow schema with one column per field of `CatalogedFile`: the form in which 100,000 files or more are kept."""


def file_table(files: Iterable[CatalogedFile]) -> pa.Table:
    """Convert files to a table with the schema CATALOGED_COLUMNS."""
    rows = [{**vars(f.file), **{k: v for k, v in vars(f).items() if k != "file"}} for f in files]
    return pa.Table.from_pylist(rows, CATALOGED_COLUMNS)
