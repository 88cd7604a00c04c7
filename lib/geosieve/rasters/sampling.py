"""Read pixel values at points: each block that contains points is decoded once, then indexed with numpy."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.errors import RasterioError, RasterioIOError
from rasterio.io import DatasetReader
from rasterio.windows import Window

from geosieve.geo.arrays import F8, I8
from geosieve.rasters import vrt, vsi
from geosieve.rasters.files import RasterFile
from geosieve.rasters.georeference import PixelGrid
from geosieve.rasters.paths import gdal_path
from geosieve.runtime.errors import InputError
from geosieve.runtime.failures import of_store

# Pixels of one read. Neighbouring blocks are read together up to this size: fewer calls, still little memory.
_READ_PIXELS = 1 << 22

CACHE_BYTES = 64 << 20
"""Size of GDAL's cache of decoded blocks per process, in bytes."""

GDAL_OPTIONS: dict[str, int | float | str] = {
    "GDAL_CACHEMAX": CACHE_BYTES,  # rasterio takes bytes; every Python worker would else take 5 % of the machine
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # else a bucket is listed for every file that is opened
    "GDAL_VRT_ENABLE_PYTHON": "NO",
    "GDAL_HTTP_MAX_RETRY": 5,  # throttling passes; 403 and 404 are not retried by GDAL
    "GDAL_HTTP_RETRY_DELAY": 0.5,
    "CPL_VSIL_CURL_USE_HEAD": "NO",
}

# Formats whose files hold pixels. Others (VRT, WMS, STAC …) make GDAL ask whatever files and hosts they name.
DRIVERS = (
    *("GTiff", "HFA", "ENVI", "EHdr", "AAIGrid", "AIG", "netCDF", "HDF5", "HDF5Image", "JP2OpenJPEG", "PNG", "JPEG"),
    *("GRIB", "SRTMHGT", "DTED", "GSAG", "GSBG", "GS7BG"),
)
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def gdal_options() -> dict[str, int | float | str]:
    """`GDAL_OPTIONS` without those set as environment variables, which take precedence."""
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
        failure = of_store(" | ".join([gdal_text(error), *heard.messages[-3:]]), uri)
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


def gdal_text(error: BaseException) -> str:
    """What GDAL said: rasterio's "see previous exception" stands for the error's cause, which this names."""
    texts: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        text = " ".join(part for part in str(cause).split(". ") if "previous exception" not in part).strip()
        if text and text not in texts:
            texts.append(text)
        cause = cause.__cause__ or cause.__context__
    return ": ".join(texts)


@contextmanager
def open_raster(uri: str, resolved_vrt: str | None = None, overview: int | None = None) -> Iterator[Any]:
    """A raster file of one of `DRIVERS`, opened with the files beside it (masks, world files, .aux.xml, headers).

    resolved_vrt: what is opened instead where the file is a VRT that the configuration admits (`vrt.resolve`).
    overview: which of the file's overviews is opened instead of its pixels, from 0.
    On S3 nothing beside a file is looked at: every name would be a request. Raises what `store_failures` does, and
    rasterio's errors: read them with `gdal_text`.
    """
    path = gdal_path(uri)
    local = not path.startswith("/vsi")
    # HDF5's links and virtual datasets may name /vsicurl/…: of the network, nothing but the raster itself is opened.
    options = {"CPL_VSIL_CURL_ALLOWED_FILENAME": "none" if local else path}
    if resolved_vrt and any(name.startswith("/vsi") for name in vrt.files(resolved_vrt)):
        options = {}
    if local and "GDAL_DISABLE_READDIR_ON_OPEN" not in os.environ:
        options["GDAL_DISABLE_READDIR_ON_OPEN"] = "TRUE"
    with store_failures(uri), rasterio.Env(**options):
        if resolved_vrt:
            with DatasetReader(resolved_vrt, driver=["VRT"]) as dataset:
                yield dataset
            return
        _refuse_indirect(path)
        level = {} if overview is None else {"OVERVIEW_LEVEL": overview}
        with DatasetReader(path, driver=list(DRIVERS), **level) as dataset:  # rasterio.open takes one driver only
            yield dataset


def _refuse_indirect(path: str) -> None:
    """RasterioIOError where a file or its mask only names other files: GDAL would open them, on any host.

    A mask is what GDAL opens beside a raster by any driver. Nothing else beside it leads elsewhere: an .aux is opened
    but not read, an .ovr or the overviews that metadata name only where overviews are read, and a CRS in an .aux.xml
    may name no file and no host.
    """
    if vrt.is_vrt(path):
        raise vrt.refusal(path)
    for mask in (f"{path}.msk", f"{path}.MSK"):
        if os.path.isfile(mask) and not vsi.read(mask, 4).startswith(_TIFF):
            raise RasterioIOError(f"{mask} is no TIFF, as GDAL writes masks: other formats may name other files")


def stored_state(uri: str) -> list[int | str]:
    """`vsi.state` of a raster, to be asked before it is opened. Raises what `store_failures` does."""
    with store_failures(uri):
        return vsi.state(gdal_path(uri))


def header_digest(dataset: Any, band: int, stored: list[int | str]) -> str:
    """SHA-256 by which a later job recognises that a file is still the one that was catalogued.

    It covers the size, grid, CRS, type, blocks, validity and scaling; for a GeoTIFF also the offsets and sizes of the
    first and last block; and `stored`, the earlier result of `stored_state`. For a VRT it is `vrt.digest` alone.
    """
    if dataset.driver == "VRT":
        return vrt.digest(dataset.name, band)
    height, width = dataset.block_shapes[band - 1]
    last = ((dataset.width - 1) // width, (dataset.height - 1) // height)
    layout = [
        dataset.get_tag_item(f"BLOCK_{what}_{x}_{y}", "TIFF", bidx=band)
        for what in ("OFFSET", "SIZE")
        for x, y in ((0, 0), last)
        if dataset.driver == "GTiff"
    ]
    facts = [
        *(dataset.driver, dataset.width, dataset.height, dataset.count, band, dataset.dtypes[band - 1]),
        *(list(dataset.transform[:6]), dataset.crs.to_wkt() if dataset.crs else None, height, width, layout, stored),
        *(repr(dataset.nodatavals[band - 1]), [flag.value for flag in dataset.mask_flag_enums[band - 1]]),
        *(dataset.scales[band - 1], dataset.offsets[band - 1]),
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def pixels(file: RasterFile, lat: F8, lon: F8) -> tuple[I8, I8, NDArray[np.bool_]]:
    """Row and column of the pixel that holds each point, and whether the file has such a pixel: `PixelGrid.pixels`."""
    return pixel_grid(file).pixels(lat, lon)


def pixel_grid(file: RasterFile) -> PixelGrid:
    """Where the file's pixels are."""
    return PixelGrid(file.crs_wkt, Affine(*file.transform), file.width, file.height)


def read_pixels(file: RasterFile, row: I8, column: I8) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Values of the pixels at row, column (shape (n,)) and whether each is valid, in the file's own type.

    InputError names the file and the window where it cannot be decoded (truncated, not a raster); RetryableError
    where its store is throttled or down.
    """
    with catalogued(file) as dataset:
        values = np.zeros(row.size, dtype=dataset.dtypes[file.band - 1])
        mask = np.ones(row.size, dtype=bool)
        for window, members in _windows(file, row, column):
            block = dataset.read(file.band, window=window)
            at = (row[members] - window.row_off, column[members] - window.col_off)
            values[members] = block[at]
            if file.mask != "none":
                mask[members] = dataset.read_masks(file.band, window=window)[at] != 0
    return values, is_valid(values, file.nodata, mask)


@contextmanager
def catalogued(file: RasterFile) -> Iterator[Any]:
    """Open a catalogued file. Raises as `read_pixels`, and InputError if the file changed since it was catalogued."""
    try:
        resolved = vrt.resolve(file.uri, None) if file.driver == "VRT" else None
        stored = [] if resolved else stored_state(file.uri)
        if resolved and vrt.digest(resolved, file.band) != file.header_sha256:
            raise _changed(file)  # before GDAL opens what it names
        with open_raster(file.uri, resolved) as dataset:
            if resolved is None and (
                dataset.count < file.band or header_digest(dataset, file.band, stored) != file.header_sha256
            ):
                raise _changed(file)
            yield dataset
    except (RasterioError, OSError) as error:
        raise InputError(
            f"the raster cannot be read: {gdal_text(error)}",
            where=file.uri,
            hint="replace the file, or leave it out and catalogue the collection anew",
        ) from error


def _changed(file: RasterFile) -> InputError:
    return InputError(
        "the raster changed since it was catalogued",
        where=file.uri,
        hint="run catalog_rasters for its collection anew",
    )


def is_valid(values: NDArray[Any], nodata: float | None, mask: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
    """Whether each pixel is valid: its mask says so, and it is neither NaN nor the value that means no data.

    Values are compared in the file's own type and as GDAL's masks do (ARE_REAL_EQUAL): a float is equal within some
    units in its last place, because headers hold decimal text.
    """
    valid = np.ones(values.shape, dtype=bool) if mask is None else mask
    if nodata is not None and representable(nodata, values.dtype):
        valid = valid & ~_equal(values, nodata)
    return valid & ~np.isnan(values) if values.dtype.kind == "f" else valid


def _equal(values: NDArray[Any], nodata: float) -> NDArray[np.bool_]:
    kind = values.dtype.type
    if values.dtype.kind != "f":
        return np.asarray(values == kind(nodata))
    with np.errstate(over="ignore", invalid="ignore"):
        value = kind(nodata)
        near = np.abs(values - value) < kind(np.finfo(np.float32).eps) * np.abs(values + value) * kind(2)
        return np.asarray((values == value) | near)


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
