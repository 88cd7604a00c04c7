"""Windows of strips: values of red, green and blue, and which of them are known."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.windows import Window

from geosieve.geo.arrays import Array
from geosieve.overhead.strips.plan import Raster, Refused, Strip
from geosieve.overhead.strips.warp import warp, window_under
from geosieve.rasters import vrt
from geosieve.rasters.georeference import PixelGrid
from geosieve.rasters.sampling import gdal_text, header_digest, is_valid, open_raster, store_failures, stored_state

_WINDOW_PIXELS = 1 << 20
_PART_PIXELS = 1 << 24
_COLUMNS = 4096


@dataclass(frozen=True)
class Pixels:
    """Red, green and blue: `values` and `known`, both (3, rows, columns). What is not known has any value."""

    values: Array
    known: NDArray[np.bool_]


class FileReader:
    """Reads windows of a file.

    A pixel is empty if the file's mask or alpha band says so, if one of its bands is NaN or infinite, or if all of them
    have their nodata value. If only some of them have it, the others are known.
    """

    def __init__(self, raster: Raster, dataset: Any) -> None:
        self._raster, self._dataset, self.grid = raster, dataset, raster.grid

    def read(self, window: Window) -> Pixels:
        """Raises `Refused`, class `truncated`, if a block cannot be decoded; else as `store_failures`."""
        raster = self._raster
        try:
            with store_failures(raster.uri):
                values = self._dataset.read(raster.bands, window=window)
                known = np.ones(values.shape, dtype=bool)
                if raster.masked:
                    known = self._dataset.read_masks(raster.bands, window=window) != 0
        except (RasterioError, OSError) as error:
            where = f"rows {window.row_off} to {window.row_off + window.height}"
            raise Refused("truncated", f"{where} of {raster.uri} cannot be read: {gdal_text(error)}") from error
        for band, nodata in enumerate(raster.nodata):
            known[band] &= is_valid(values[band], nodata)
        if values.dtype.kind == "f":
            known &= np.isfinite(values).all(axis=0)
        return Pixels(values, known)


class SharpReader:
    """Reads windows of a strip that a panchromatic partner sharpens, on the partner's grid.

    The method is Brovey's: each band is multiplied by the panchromatic value and divided by the mean of the three
    (Gillespie, Kahle and Walker 1987, doi:10.1016/0034-4257(87)90088-5). The three are interpolated bilinearly. The
    result is rounded to the panchromatic file's type. Where the mean is 0, all three are 0.
    """

    def __init__(self, colours: FileReader, panchromatic: FileReader, dtype: np.dtype[Any]) -> None:
        self._colours, self._panchromatic, self._dtype = colours, panchromatic, dtype
        self.grid = panchromatic.grid

    def read(self, window: Window) -> Pixels:
        """Raises as `FileReader.read`."""
        sharp = self._panchromatic.read(window)
        colours = warped(self._colours, part_of(self.grid, window), "bilinear")
        values = colours.values.astype(np.float64)
        mean = values.mean(axis=0)
        values = np.divide(values * sharp.values[0], mean, out=np.zeros_like(values), where=mean > 0)
        if self._dtype.kind != "f":
            limits = np.iinfo(self._dtype)
            values = np.clip(np.floor(values + 0.5), limits.min, limits.max)
        return Pixels(values.astype(self._dtype), colours.known & sharp.known)


Reader = FileReader | SharpReader


@contextmanager
def opened(strip: Strip) -> Iterator[Reader]:
    """A reader of the strip's pixels on the grid of `strip.source`.

    Raises `Refused`, class `changed`, if one of its files is not the one that was described, and the errors of
    `store_failures`.
    """
    with _file(strip.raster) as colours:
        if strip.panchromatic is None:
            yield colours
            return
        with _file(strip.panchromatic) as panchromatic:
            yield SharpReader(colours, panchromatic, strip.dtype)


@contextmanager
def _file(raster: Raster) -> Iterator[FileReader]:
    changed = Refused("changed", f"{raster.uri} changed since it was listed")
    try:
        resolved = vrt.resolve(raster.uri, None) if raster.vrt else None
        if resolved and vrt.digest(resolved, raster.bands[0]) != raster.header_sha256:
            raise changed  # before GDAL opens what it names
        stored = [] if resolved else stored_state(raster.uri)
        with open_raster(raster.uri, resolved) as dataset:
            if resolved is None and (
                dataset.count < max(raster.bands)
                or header_digest(dataset, raster.bands[0], stored) != raster.header_sha256
            ):
                raise changed
            yield FileReader(raster, dataset)
    except (RasterioError, OSError) as error:
        raise Refused("changed", f"{raster.uri} cannot be opened any more: {gdal_text(error)}") from error


def parts(raster: Raster) -> list[tuple[int, int]]:
    """First and last row (exclusive) of the parts of a raster that are read by separate tasks. Blocks stay whole."""
    rows = _multiple(_PART_PIXELS // raster.grid.width, raster.block[0])
    return [(row, min(row + rows, raster.grid.height)) for row in range(0, raster.grid.height, rows)]


def windows(raster: Raster, first: int, last: int) -> Iterator[Window]:
    """Windows of about a million pixels that cover rows from `first` to `last`. No block lies in two of them."""
    tall, wide = raster.block
    columns = min(raster.grid.width, _multiple(_COLUMNS, wide))
    rows = _multiple(_WINDOW_PIXELS // columns, tall)
    for top in range(first, last, rows):
        for left in range(0, raster.grid.width, columns):
            yield Window(left, top, min(columns, raster.grid.width - left), min(rows, last - top))


def _multiple(about: int, of: int) -> int:
    return max(1, about // of) * of


def part_of(grid: PixelGrid, window: Window) -> PixelGrid:
    """The pixels of a window of a grid."""
    transform = grid.transform * grid.transform.translation(window.col_off, window.row_off)
    return PixelGrid(grid.crs_wkt, transform, window.width, window.height)


def warped(reader: Reader, target: PixelGrid, resampling: str) -> Pixels:
    """The pixels of a strip on another grid; none are known where it has none. Raises as `FileReader.read`."""
    window = window_under(reader.grid, target)
    if window is None:
        shape = (3, target.height, target.width)
        return Pixels(np.zeros(shape), np.zeros(shape, dtype=bool))
    pixels = reader.read(window)
    values = np.where(pixels.known, pixels.values, 0).astype(np.float64)
    values, valid = warp(values, pixels.known.any(axis=0), part_of(reader.grid, window), target, resampling)
    return Pixels(values, np.broadcast_to(valid, values.shape))
