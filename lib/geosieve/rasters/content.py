"""Checksum of a raster's pixels that does not depend on the file's format, tiling or compression.

The pixel grid is divided into blocks of 1024 rows and 4096 columns, independent of the blocks in the file. The digest
of a block is BLAKE3 over its values, row by row from the top, in little-endian order. BLAKE3 is as collision-resistant
as SHA-256 (256 bits) and several times faster; SHA-256 would take more than half the time of decoding. The checksum of
a raster is SHA-256 over its type, size, validity rule and block digests in row-major order.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray
from rasterio.windows import Window

from geosieve.geo.arrays import Array
from geosieve.rasters.sampling import CACHE_BYTES, is_valid, representable

BLOCK_ROWS, BLOCK_COLUMNS = 1024, 4096
_READ_PIXELS = 1 << 20  # small enough that decoded pixels are still in the processor's cache when they are hashed
_PART_PIXELS = 1 << 26
_SAMPLE_BLOCKS = 16


def windows(dataset: Any, band: int, first_row: int, last_row: int) -> Iterator[tuple[int, list[Window]]]:
    """Windows that cover the rows from `first_row` up to and excluding `last_row`.

    Yields one pair per group of rows: the row at which the group ends (exclusive), and its windows from left to right.
    A window is as wide as a digest block, so that values need not be copied before they are hashed, and has about a
    million pixels. File blocks that are wider stay in GDAL's cache while their windows are read; file blocks that would
    not fit into the cache are read whole.
    """
    width = dataset.width
    tall, wide = dataset.block_shapes[band - 1]
    itemsize = np.dtype(dataset.dtypes[band - 1]).itemsize
    fitting = CACHE_BYTES // 2 // (tall * width * itemsize)  # rows of blocks that the cache holds
    columns = BLOCK_COLUMNS if fitting or wide <= BLOCK_COLUMNS else -(-wide // BLOCK_COLUMNS) * BLOCK_COLUMNS
    columns = min(columns, width)
    rows_of_blocks = max(1, _READ_PIXELS // (tall * columns))
    step = (min(rows_of_blocks, fitting) if fitting else 1) * tall
    top = first_row
    while top < last_row:
        bottom = min((top // tall * tall) + step, last_row)
        yield bottom, [Window(left, top, min(columns, width - left), bottom - top) for left in range(0, width, columns)]
        top = bottom


class ContentReader:
    """Computes block digests from windows of values, which must be fed in the order of `windows`."""

    def __init__(self, masked: bool) -> None:
        self._masked = masked
        self._open: dict[tuple[int, int], list[blake3]] = {}  # (row, column): hash of values, then of mask
        self._done: list[bytes] = []

    def feed(self, window: Window, values: Array, valid: NDArray[np.bool_] | None) -> None:
        """Add the values of a window, and their mask `valid` if the raster has one."""
        layers = [values.astype(values.dtype.newbyteorder("<"), copy=False)]
        if self._masked and valid is not None:
            layers = [np.where(valid, layers[0], np.zeros((), layers[0].dtype)), valid.view(np.uint8)]
        for row, rows in _cut(window.row_off, window.height, BLOCK_ROWS):
            for column, columns in _cut(window.col_off, window.width, BLOCK_COLUMNS):
                hashes = self._open.setdefault((row, column), [])
                hashes += [blake3() for _ in layers[len(hashes) :]]
                for hash_, layer in zip(hashes, layers, strict=True):
                    hash_.update(np.ascontiguousarray(layer[rows, columns]).data.cast("B"))

    def end(self, bottom: int) -> None:
        """Finish the blocks that end at or above row `bottom`. All rows above `bottom` must have been fed."""
        for block in sorted(block for block in self._open if (block[0] + 1) * BLOCK_ROWS <= bottom):
            self._close(block)

    def digests(self) -> bytes:
        """32 bytes per block, in row-major order. Call it after all rows were fed."""
        for block in sorted(self._open):
            self._close(block)
        return b"".join(self._done)

    def _close(self, block: tuple[int, int]) -> None:
        digests = [hash_.digest() for hash_ in self._open.pop(block)]
        self._done.append(digests[0] if len(digests) == 1 else blake3(b"".join(digests)).digest())


def _cut(start: int, length: int, size: int) -> Iterator[tuple[int, slice]]:
    """Divide a range at multiples of `size`: yields each block's number and the slice of the range inside it."""
    for number in range(start // size, -(-(start + length) // size)):
        yield number, slice(max(number * size - start, 0), (number + 1) * size - start)


@dataclass(frozen=True)
class PixelFacts:
    """Which band to read, and how to interpret its values.

    nodata: the stored value that marks invalid pixels, if any. masked: whether a mask marks the valid pixels instead.
    Value in units = scale · stored value + offset.
    """

    band: int
    nodata: float | None
    masked: bool
    scale: float
    offset: float


def content_sha256(dtype: str, shape: tuple[int, int], pixels: PixelFacts, scope: str, digests: bytes) -> str:
    """Checksum of a raster over its type, its shape (rows, columns), its validity rule and its block digests.

    Without a mask, the validity rule is the nodata value, if the pixel type can represent it. With a mask, the mask is
    part of the block digests. scope: `full` or `sampled`; it enters the checksum, so that the two never match.
    """
    rule = None
    if pixels.nodata is not None and not pixels.masked and representable(pixels.nodata, np.dtype(dtype)):
        rule = np.array(pixels.nodata, np.dtype(dtype).newbyteorder("<")).tobytes().hex()
    facts = ["raster content 2", scope, dtype, list(shape), rule, pixels.masked]
    return hashlib.sha256(json.dumps(facts).encode() + b"\0" + digests).hexdigest()


def parts(height: int, width: int) -> range:
    """First pixel row of each part that one task reads: whole rows of digest blocks, about 64 million pixels."""
    return range(0, height, part_rows(width))


def part_rows(width: int) -> int:
    """Number of pixel rows in a part of a raster with this width."""
    return max(1, _PART_PIXELS // (BLOCK_ROWS * width)) * BLOCK_ROWS


def read_part(dataset: Any, pixels: PixelFacts, first_row: int, statistics: bool) -> dict[str, Any]:
    """Read one part of a raster and return its block digests under `digests`.

    With `statistics`, the result also has value_min, value_max and positive_min (the least positive value) of the valid
    pixels, with scale and offset applied. Values that do not exist are left out.
    """
    last_row = min(first_row + part_rows(dataset.width), dataset.height)
    reader, found = ContentReader(pixels.masked), _Statistics()
    for bottom, row_windows in windows(dataset, pixels.band, first_row, last_row):
        for window in row_windows:
            values = dataset.read(pixels.band, window=window)
            mask = dataset.read_masks(pixels.band, window=window) != 0 if pixels.masked else None
            reader.feed(window, values, mask)
            if statistics:
                valid = values[is_valid(values, pixels.nodata, mask)]
                found.add(valid.astype(np.float64) * pixels.scale + pixels.offset)
        reader.end(bottom)
    return {"digests": reader.digests(), **(found.known() if statistics else {})}


def read_sample(dataset: Any, pixels: PixelFacts) -> bytes:
    """Digests of at most 16 blocks, evenly spaced in row-major order. The first and the last block are included."""
    across, down = -(-dataset.width // BLOCK_COLUMNS), -(-dataset.height // BLOCK_ROWS)
    digests = b""
    for number in np.unique(np.linspace(0, across * down - 1, _SAMPLE_BLOCKS).astype(int)):
        top, left = number // across * BLOCK_ROWS, number % across * BLOCK_COLUMNS
        height, width = min(BLOCK_ROWS, dataset.height - top), min(BLOCK_COLUMNS, dataset.width - left)
        window = Window(left, top, width, height)
        mask = dataset.read_masks(pixels.band, window=window) != 0 if pixels.masked else None
        reader = ContentReader(pixels.masked)
        reader.feed(Window(0, 0, width, height), dataset.read(pixels.band, window=window), mask)
        digests += reader.digests()
    return digests


class _Statistics:
    """Running minimum, maximum and least positive value."""

    def __init__(self) -> None:
        self._least, self._greatest, self._positive = np.inf, -np.inf, np.inf

    def add(self, values: Array) -> None:
        if not values.size:
            return
        self._least, self._greatest = min(self._least, float(values.min())), max(self._greatest, float(values.max()))
        above = values[values > 0]
        self._positive = min(self._positive, float(above.min())) if above.size else self._positive

    def known(self) -> dict[str, float]:
        found = {"value_min": self._least, "value_max": self._greatest, "positive_min": self._positive}
        return {name: value for name, value in found.items() if np.isfinite(value)}
