"""Windows of rasters as greys of red, green and blue, and chips made of them."""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import simplejpeg
from isal import isal_zlib
from numpy.typing import NDArray
from PIL import Image
from rasterio.enums import MaskFlags
from rasterio.errors import RasterioError
from rasterio.windows import Window

from geosieve.overhead.chips.plan import ChipGrid, overview_level
from geosieve.overhead.chips.sources import ChipRaster
from geosieve.overhead.strips.levels import greys
from geosieve.overhead.strips.reader import part_of
from geosieve.overhead.strips.warp import warp, window_under
from geosieve.rasters.georeference import PixelGrid
from geosieve.rasters.sampling import catalogued, gdal_text, is_valid, open_raster, store_failures, stored_state
from geosieve.runtime import store
from geosieve.runtime.errors import InputError

_MOST_PIXELS = 1 << 26
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_EIGHT_BIT_RGB = (8, 2, 0, 0, 0)  # bits, colour type, compression, filters, no interlace
_FILTER_UP = 2

Greys = NDArray[np.uint8]
"""Red, green and blue, (3, rows, columns)."""


class Unreadable(Exception):
    """A chip cannot be cut from a raster. Arguments: error class, message."""


@dataclass(frozen=True)
class Chip:
    """Greys, (3, rows, columns), and the share of pixels that are empty; those are 0."""

    greys: Greys
    empty_share: float


class RasterReader:
    """Reads windows of an open raster."""

    def __init__(self, raster: ChipRaster, dataset: Any, grid: PixelGrid, bands: tuple[int, ...]) -> None:
        self._raster, self._dataset, self._bands = raster, dataset, bands
        self.grid = grid
        flags = dataset.mask_flag_enums[bands[0] - 1]
        self._shared_mask = MaskFlags.per_dataset in flags
        file = raster.file
        masked = self._shared_mask or (file is not None and file.mask != "none")
        self._mask_bands = () if not masked else bands[:1] if self._shared_mask else bands
        declared = [dataset.nodatavals[band - 1] for band in bands]
        if file is None:
            declared = [None] * len(bands)  # black pixels of a prepared strip are black
        elif file.nodata is not None:
            declared = [file.nodata] * len(bands)
        self._nodata = declared

    def read(self, window: Window) -> tuple[Greys, NDArray[np.bool_]]:
        """Greys and whether each pixel is known; a window that reaches beyond the raster is empty there.

        A pixel is empty if a mask or alpha band says so, if one of its bands is NaN or infinite, or if all of them have
        their nodata value. Raises `Unreadable`, class `truncated`, if a block cannot be decoded; else as
        `store_failures`.
        """
        inner = _within(window, self.grid)
        if inner is None:
            return _empty(window.height, window.width)
        uri = self._raster.uri
        try:
            with store_failures(uri):
                values = self._dataset.read(self._bands, window=inner)
                known = np.ones(values.shape[1:], dtype=bool)
                if self._mask_bands:
                    known = (self._dataset.read_masks(self._mask_bands, window=inner) != 0).any(axis=0)
        except (RasterioError, OSError) as error:
            where = f"rows {inner.row_off} to {inner.row_off + inner.height}"
            raise Unreadable("truncated", f"{where} of {uri} cannot be read: {gdal_text(error)}") from error
        if any(nodata is not None for nodata in self._nodata):
            known &= np.any([is_valid(v, n) for v, n in zip(values, self._nodata, strict=True)], axis=0)
        if values.dtype.kind == "f":
            known &= np.isfinite(values).all(axis=0)
        if self._raster.ranges is not None:
            values = np.stack([greys(v, *pair) for v, pair in zip(values, self._raster.ranges, strict=True)])
        if not known.all():
            values = np.where(known, values, 0)
        if inner == window:
            return values, known
        out, valid = _empty(window.height, window.width)
        top, left = inner.row_off - window.row_off, inner.col_off - window.col_off
        at = slice(top, top + inner.height), slice(left, left + inner.width)
        out[(slice(None), *at)], valid[at] = values, known
        return out, valid


def _empty(height: int, width: int) -> tuple[Greys, NDArray[np.bool_]]:
    return np.zeros((3, height, width), np.uint8), np.zeros((height, width), dtype=bool)


def _within(window: Window, grid: PixelGrid) -> Window | None:
    top, left = max(0, window.row_off), max(0, window.col_off)
    bottom = min(grid.height, window.row_off + window.height)
    right = min(grid.width, window.col_off + window.width)
    return Window(left, top, right - left, bottom - top) if top < bottom and left < right else None


class OpenRaster:
    """The raster that a task has open: one at a time, since GDAL is set up for each."""

    def __init__(self) -> None:
        self._key: tuple[str, int] | None = None
        self._stack = ExitStack()

    def reader(self, raster: ChipRaster, level: int) -> RasterReader:
        """A reader of a raster, or of the overview of a prepared strip whose pixels are halved up to `level` times.

        Raises `Unreadable`, class `changed`, if a prepared strip is not the file that was written, and InputError if a
        catalogued raster changed or cannot be used.
        """
        if self._key != (raster.uri, level):
            self.close()
            self._reader = self._stack.enter_context(_opened(raster, level))
            self._key = raster.uri, level
        return self._reader

    def close(self) -> None:
        """Close it."""
        self._key = None
        self._stack.close()


@contextmanager
def _opened(raster: ChipRaster, level: int) -> Iterator[RasterReader]:
    if raster.file is not None:
        with catalogued(raster.file) as dataset:
            bands = raster.bands or ((1, 2, 3) if dataset.count >= 3 else (1, 1, 1))
            _check_bands(raster, dataset, bands)
            yield RasterReader(raster, dataset, raster.grid, bands)
        return
    changed = Unreadable("changed", f"{raster.uri} is not the file that prepare_strips wrote")
    try:
        if store.size(raster.uri) != raster.size:
            raise changed
        stored_state(raster.uri)  # makes GDAL forget an older file of this name
        overview = None
        with open_raster(raster.uri) as dataset:
            grid = raster.grid
            same = (dataset.width, dataset.height, dataset.count) == (grid.width, grid.height, 3)
            near = dataset.transform.almost_equals(grid.transform, 1e-6)
            if not (same and near and dataset.crs.to_epsg() == raster.epsg):
                raise changed
            smaller = [k for k, factor in enumerate(dataset.overviews(1)) if factor <= 1 << level]
            if not smaller:
                yield RasterReader(raster, dataset, grid, (1, 2, 3))
                return
            overview = smaller[-1]
        with open_raster(raster.uri, overview=overview) as dataset:
            grid = PixelGrid(grid.crs_wkt, dataset.transform, dataset.width, dataset.height)
            yield RasterReader(raster, dataset, grid, (1, 2, 3))
    except (RasterioError, OSError) as error:
        raise Unreadable("changed", f"{raster.uri} cannot be opened any more: {gdal_text(error)}") from error


def _check_bands(raster: ChipRaster, dataset: Any, bands: tuple[int, ...]) -> None:
    if max(bands) > dataset.count:
        raise InputError(f"it has {dataset.count} bands, not {max(bands)}", where=raster.uri, hint="set its `bands`")
    kinds = {dataset.dtypes[band - 1] for band in bands}
    if raster.ranges is None and kinds != {"uint8"}:
        raise InputError(
            f"pixels of type {', '.join(sorted(kinds))} need two values that become black and white",
            where=raster.uri,
            hint="give its collection `ranges`, or make strips of it with prepare_strips",
        )


def cut(rasters: OpenRaster, raster: ChipRaster, chip: ChipGrid, resampling: str) -> Chip:
    """The pixels of a chip. Raises as `OpenRaster.reader` and `RasterReader.read`.

    A window is read as it is. Everything else is resampled by GDAL, whose kernels widen where pixels are merged, so
    that fine patterns fade and do not alias. `Unreadable`, class `too_coarse`, if the chip covers so many pixels of the
    raster that they would not fit into memory.
    """
    if chip.window is not None:
        values, valid = rasters.reader(raster, 0).read(chip.window)
    else:
        values, valid = _warped(rasters, raster, chip, resampling)
    return Chip(values, np.count_nonzero(~valid) / valid.size)


def _warped(
    rasters: OpenRaster, raster: ChipRaster, chip: ChipGrid, resampling: str
) -> tuple[Greys, NDArray[np.bool_]]:
    reader = rasters.reader(raster, overview_level(raster, math.hypot(chip.grid.transform.a, chip.grid.transform.d)))
    window = window_under(reader.grid, chip.grid)
    if window is None:
        return _empty(chip.grid.height, chip.grid.width)
    if window.width * window.height > _MOST_PIXELS:
        raise Unreadable(
            "too_coarse", f"the chip covers {window.height} × {window.width} pixels of {raster.uri}: too many to read"
        )
    values, valid = reader.read(window)
    if not valid.any():
        return _empty(chip.grid.height, chip.grid.width)
    values, valid = warp(values, valid, part_of(reader.grid, window), chip.grid, resampling)
    return np.where(valid, values, 0), valid


def encoded(values: Greys, kind: str, quality: int) -> bytes:
    """A picture as the content of a file of this kind: png, jpeg (4:2:0) or webp."""
    pixels = np.empty((*values.shape[1:], 3), np.uint8)
    for band, of_band in enumerate(values):  # six times as fast as a transposed copy
        pixels[..., band] = of_band
    if kind == "jpeg":
        return bytes(simplejpeg.encode_jpeg(pixels, quality, "RGB", "420"))
    if kind == "png":
        return _png(pixels)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "WEBP", quality=quality)
    return stream.getvalue()


def _png(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG of (rows, columns, 3), in a fifth of the time of Pillow's fastest.

    Pillow tries five filters for each row, which takes longer than the compression. The difference to the row above
    does as well for pictures of the ground.
    """
    height, width, _ = pixels.shape
    rows = np.empty((height, 1 + 3 * width), np.uint8)
    rows[:, 0] = _FILTER_UP
    rows[:, 1:] = pixels.reshape(height, -1)
    rows[1:, 1:] -= pixels[:-1].reshape(height - 1, -1)
    header = struct.pack(">II5B", width, height, *_EIGHT_BIT_RGB)
    chunks = ((b"IHDR", header), (b"IDAT", isal_zlib.compress(rows, 1)), (b"IEND", b""))
    return b"".join([_PNG_SIGNATURE, *(_png_chunk(kind, data) for kind, data in chunks)])


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    checksum = isal_zlib.crc32(data, isal_zlib.crc32(kind))
    return b"".join([struct.pack(">I", len(data)), kind, data, struct.pack(">I", checksum)])
