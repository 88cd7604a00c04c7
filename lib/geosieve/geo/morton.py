"""Z-order (Morton) codes of points in a box of latitude and longitude, as the leaves of a quadtree."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geosieve.geo.sphere import Floats

DEPTH = 30
"""Levels of the quadtree: each halves the box in latitude and in longitude."""

Ints = NDArray[np.int64]

# Shifts and masks that spread 30 bits to every second place (Morton 1966).
_SPREAD = (
    (16, 0x0000FFFF0000FFFF),
    (8, 0x00FF00FF00FF00FF),
    (4, 0x0F0F0F0F0F0F0F0F),
    (2, 0x3333333333333333),
    (1, 0x5555555555555555),
)


@dataclass(frozen=True)
class Box:
    """A box with bounds in degrees; all four edges belong to it. Longitudes do not wrap at ±180."""

    south: float
    west: float
    north: float
    east: float

    def leaves(self, lat: Floats, lon: Floats) -> Ints:
        """Return the Morton code of each point's leaf, or -1 outside the box. lat, lon: degrees, same shape.

        Codes count from the south-west; in each pair of bits, latitude has the higher one. The southern and western
        edges of a leaf belong to it. The northern and eastern edges of the whole box belong to its outermost leaves.
        """
        row, column = _index(lat, self.south, self.north), _index(lon, self.west, self.east)
        inside = (lat >= self.south) & (lat <= self.north) & (lon >= self.west) & (lon <= self.east)
        return np.where(inside, (_spread(row) << 1) | _spread(column), -1)

    def bounds(self, leaf: Ints, level: Ints) -> tuple[Floats, Floats, Floats, Floats]:
        """Return south, west, north and east, degrees, of the quadtree cells with these levels and first leaves.

        `leaf` and `level` have the same shape. Level 0 is the whole box, level `DEPTH` a leaf.
        """
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
    """Index of the interval, 0 to 2^DEPTH - 1, that contains each value between `low` and `high`."""
    extent = (high - low) or 1.0  # without extent, all points are in the first cell of every level
    scaled = np.floor((value - low) / extent * 2.0**DEPTH)
    return np.asarray(np.clip(scaled, 0, 2.0**DEPTH - 1), dtype=np.int64)


def _spread(value: Ints) -> Ints:
    """Move bit k of each value to bit 2 k."""
    for shift, mask in _SPREAD:
        value = (value | (value << shift)) & mask
    return value


def _gather(value: Ints) -> Ints:
    """Move bit 2 k of each value to bit k, the inverse of `_spread`; odd bits are ignored."""
    value = value & _SPREAD[-1][1]
    for (shift, _), (_, mask) in zip(_SPREAD[::-1], [*_SPREAD[-2::-1], (0, 0x00000000FFFFFFFF)], strict=True):
        value = (value | (value >> shift)) & mask
    return value
