"""Values of raster pixels at points: every block that points need is decoded once, then indexed in numpy."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.windows import Window

from geosieve.rasters.georeference import PixelGrid
from geosieve.runtime.errors import InputError
from geosieve.runtime.failures import of_store

F8 = NDArray[np.float64]
I8 = NDArray[np.int64]

# Pixels of one read. Neighbouring blocks are read together up to this size: fewer calls, still little memory.
_READ_PIXELS = 1 << 22

GDAL_OPTIONS: dict[str, int | float | str] = {
    "GDAL_CACHEMAX": 64,  # MB; the default of 5 % of the machine would be taken by every Python worker
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # else a bucket is listed for every file that is opened
    "GDAL_HTTP_MAX_RETRY": 5,  # throttling passes; 403 and 404 are not retried by GDAL
    "GDAL_HTTP_RETRY_DELAY": 0.5,
    "CPL_VSIL_CURL_USE_HEAD": "NO",
}


@dataclass(frozen=True)
class RasterFile:
    """What sampling must know of a file: a row of `raster_catalog`."""

    uri: str
    band: int
    priority: int
    crs_wkt: str
    transform: tuple[float, float, float, float, float, float]  # a, b, c, d, e, f
    width: int
    height: int
    nodata: float | None
    mask: str  # none | mask | alpha
    block_height: int
    block_width: int
    is_global: bool
    header_sha256: str
    content_sha256: str  # of the pixels' values and validity, see geosieve.rasters.content


def gdal_options() -> dict[str, int | float | str]:
    """`GDAL_OPTIONS` without those that the process has in its environment: these stay as they are there."""
    return {name: value for name, value in GDAL_OPTIONS.items() if name not in os.environ}


@contextmanager
def gdal_environment() -> Iterator[None]:
    """GDAL set up for reading blocks: a bounded cache, retries, no surprise listings."""
    with rasterio.Env(**gdal_options()):
        yield


@contextmanager
def store_failures(uri: str) -> Iterator[None]:
    """Turn GDAL's errors into RetryableError or InputError where the store and not the file is at fault.

    The exception of a failed read does not tell that the server was throttling; only GDAL's warnings do.
    """
    heard = _Warnings()
    log = logging.getLogger("rasterio")
    log.addHandler(heard)
    try:
        yield
    except (RasterioError, OSError) as error:
        failure = of_store(" | ".join([str(error), *heard.messages[-3:]]), uri)
        if failure is None:
            raise
        raise failure from error
    finally:
        log.removeHandler(heard)


class _Warnings(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def gdal_path(uri: str) -> str:
    """The name under which GDAL opens a URI that Hadoop knows (s3a://, s3://, file:)."""
    scheme, _, rest = uri.partition("://")
    if scheme in ("s3a", "s3", "s3n") and rest:
        return f"/vsis3/{rest}"
    if uri.startswith("file:"):
        return "/" + uri[len("file:") :].lstrip("/")
    return uri


def pixels(file: RasterFile, lat: F8, lon: F8) -> tuple[I8, I8, NDArray[np.bool_]]:
    """Row and column of the pixel that holds each point, and whether the file has such a pixel: `PixelGrid.pixels`."""
    return PixelGrid(file.crs_wkt, Affine(*file.transform), file.width, file.height).pixels(lat, lon)


def read_pixels(file: RasterFile, row: I8, column: I8) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Values of the pixels at row, column (shape (n,)) and whether each is valid, in the file's own type.

    InputError names the file and the window where it cannot be decoded (truncated, not a raster); RetryableError
    where its store is throttled or down.
    """
    try:
        with store_failures(file.uri), rasterio.open(gdal_path(file.uri)) as dataset:
            values = np.zeros(row.size, dtype=dataset.dtypes[file.band - 1])
            mask = np.ones(row.size, dtype=bool)
            for window, members in _windows(file, row, column):
                block = dataset.read(file.band, window=window)
                at = (row[members] - window.row_off, column[members] - window.col_off)
                values[members] = block[at]
                if file.mask != "none":
                    mask[members] = dataset.read_masks(file.band, window=window)[at] != 0
    except (RasterioError, OSError) as error:
        raise InputError(
            f"the raster cannot be read: {error}",
            where=file.uri,
            hint="replace the file, or leave it out and catalogue the collection anew",
        ) from error
    return values, is_valid(values, file.nodata, mask)


def is_valid(values: NDArray[Any], nodata: float | None, mask: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
    """Whether each pixel is valid: its mask says so, and it is neither NaN nor the value that means no data."""
    valid = np.ones(values.shape, dtype=bool) if mask is None else mask
    if nodata is not None and representable(nodata, values.dtype):
        # Compared in the file's own type: a float32's nodata is no exact double.
        valid = valid & (values != values.dtype.type(nodata))
    return valid & ~np.isnan(values) if values.dtype.kind == "f" else valid


def representable(value: float, dtype: np.dtype[Any]) -> bool:
    """Whether a pixel of this type can be equal to `value`: headers declare -9999 on unsigned bytes."""
    if dtype.kind == "f":
        return not np.isnan(value)  # NaN equals nothing; NaN pixels are invalid anyway
    limits = np.iinfo(dtype)
    return float(value).is_integer() and limits.min <= value <= limits.max


def _windows(file: RasterFile, row: I8, column: I8) -> Iterator[tuple[Window, I8]]:
    """Windows that together hold all pixels, and the members of each; no block is in two windows."""
    if row.size == 0:
        return
    across = -(-file.width // file.block_width)
    block = (row // file.block_height) * across + column // file.block_width
    order = np.argsort(block, kind="stable")
    ordered = block[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    blocks = ordered[starts]
    ends = np.r_[starts[1:], ordered.size]
    most = max(1, _READ_PIXELS // (file.block_height * file.block_width))
    # A run of neighbours: strips below each other, or tiles beside each other in one row of tiles.
    follows = np.diff(blocks) == 1
    if across > 1:
        follows &= blocks[1:] // across == blocks[:-1] // across
    first = 0
    for last in range(blocks.size):
        if last + 1 < blocks.size and follows[last] and last + 1 - first < most:
            continue
        members = order[starts[first] : ends[last]]
        top = int(blocks[first] // across) * file.block_height
        bottom = min(int(blocks[last] // across + 1) * file.block_height, file.height)
        # Only the columns that are needed are copied; the decoder works by whole blocks anyway.
        columns = column[members]
        left, right = int(columns.min()), int(columns.max()) + 1
        yield Window(left, top, right - left, bottom - top), members
        first = last + 1
