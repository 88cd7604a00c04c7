"""Z-order (Morton) codes of points in a box of longitude and latitude: the leaves of a quadtree."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geosieve.geo.sphere import Floats

DEPTH = 30

Ints = NDArray[np.int64]

# Spreading 30 bits to every second place: shift and mask (Morton 1966).
_SPREAD = (
    (16, 0x0000FFFF0000FFFF),
    (8, 0x00FF00FF00FF00FF),
    (4, 0x0F0F0F0F0F0F0F0F),
    (2, 0x3333333333333333),
    (1, 0x5555555555555555),
)


@dataclass(frozen=True)
class Box:
    """Bounds in degrees; both edges belong to it. Longitudes are a plane: nothing wraps at ±180."""

    south: float
    west: float
    north: float
    east: float

    def leaves(self, lat: Floats, lon: Floats) -> Ints:
        """Code of each point's box at `DEPTH` halvings, south-west first, latitude above longitude; -1 outside.

        A box holds its southern and western edge; the outermost northern and eastern ones belong to the last boxes.
        """
        row, column = _index(lat, self.south, self.north), _index(lon, self.west, self.east)
        inside = (lat >= self.south) & (lat <= self.north) & (lon >= self.west) & (lon <= self.east)
        return np.where(inside, (_spread(row) << 1) | _spread(column), -1)

    def bounds(self, leaf: Ints, level: Ints) -> tuple[Floats, Floats, Floats, Floats]:
        """South, west, north, east of the boxes of a level that begin at these codes."""
        size = 2.0 ** -level.astype(np.float64)
        row, column = _gather(leaf >> 1) / 2.0**DEPTH, _gather(leaf) / 2.0**DEPTH
        height, width = self.north - self.south, self.east - self.west
        return (
            self.south + height * row,
            self.west + width * column,
            self.south + height * (row + size),
            self.west + width * (column + size),
        )


def _index(value: Floats, low: float, high: float) -> Ints:
    extent = (high - low) or 1.0  # one point: it is in the first box of every level
    scaled = np.floor((value - low) / extent * 2.0**DEPTH)
    return np.asarray(np.clip(scaled, 0, 2.0**DEPTH - 1), dtype=np.int64)


def _spread(value: Ints) -> Ints:
    for shift, mask in _SPREAD:
        value = (value | (value << shift)) & mask
    return value


def _gather(value: Ints) -> Ints:
    value = value & _SPREAD[-1][1]
    for (shift, _), (_, mask) in zip(_SPREAD[::-1], [*_SPREAD[-2::-1], (0, 0x00000000FFFFFFFF)], strict=True):
        value = (value | (value >> shift)) & mask
    return value
