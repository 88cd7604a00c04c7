"""S2 cells that cover boxes of latitude and longitude, with the area of a box in each cell."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geosieve.geo import s2
from geosieve.geo.arrays import F8, I8
from geosieve.geo.sphere import cell_area_km2, haversine_km, require

_PART = 8
"""A box that lies in several cells is halved until it is this many times smaller than a cell's least width."""
_LEAST_WIDTH = 2 * np.sqrt(2) / 3  # radians, of a cell of level 0; halved from level to level (S2 geometry, s2metrics)


@dataclass(frozen=True)
class Boxes:
    """Boxes between parallels and meridians, degrees; arrays of shape (n,).

    west is at most east, so that a box across ±180 is two. `of` says what a box belongs to.
    """

    south: F8
    west: F8
    north: F8
    east: F8
    of: I8

    def __post_init__(self) -> None:
        require(self.south <= self.north, self.south, "the south of a box is not above its north")
        require(self.west <= self.east, self.west, "the west of a box is not beyond its east: cut it at ±180")

    def taken(self, chosen: NDArray[np.bool_]) -> Boxes:
        """The chosen boxes."""
        return Boxes(*(getattr(self, name)[chosen] for name in _FIELDS))

    def centres(self) -> tuple[F8, F8]:
        """Their middles (lat, lon), degrees."""
        return (self.south + self.north) / 2, (self.west + self.east) / 2

    def radii(self) -> F8:
        """Radii of the circles around their middles that contain them, radians."""
        lat, lon = self.centres()
        ends = [haversine_km(lat, lon, end, self.west, radius_km=1.0) for end in (self.south, self.north)]
        return np.asarray(np.maximum(*ends))

    def halved(self) -> Boxes:
        """Each box as two, across its longer side."""
        lat, lon = self.centres()
        wide = (self.east - self.west) * np.cos(np.radians(lat)) > self.north - self.south
        first = Boxes(self.south, self.west, np.where(wide, self.north, lat), np.where(wide, lon, self.east), self.of)
        second = Boxes(np.where(wide, self.south, lat), np.where(wide, lon, self.west), self.north, self.east, self.of)
        return Boxes(*(np.concatenate([getattr(of, k) for of in (first, second)]) for k in _FIELDS))


_FIELDS = ("south", "west", "north", "east", "of")
Keep = Callable[[Boxes], NDArray[np.bool_]]


def rests_of(height_deg: float, level: int) -> float:
    """Into about how many rests a square box of this height is divided by `covered`, at most."""
    return max(1.0, 4 * (math.radians(height_deg) / _least(level) * _PART) ** 2)


def covered(boxes: Boxes, level: int, keep: Keep | None = None) -> tuple[I8, I8, F8]:
    """Return (of, cell, km²): the S2 cells of a level that boxes touch, and the area of the boxes in each.

    Every point of a box lies in one of its cells. A cell that is given without need is no further from its box than an
    eighth of a cell's width. A box is halved until it lies in one cell or is eight times smaller than a cell; the area
    of such a rest counts for the cell at its middle, and other cells that it touches get 0 km² of it. The arrays have
    shape (n,); rows are sorted by `of` and cell, and each pair occurs once. `keep` says of boxes, also of halves, which
    count. ValueError for bad coordinates or levels.
    """
    least = _least(level)
    found: list[tuple[I8, I8, F8]] = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))]
    while boxes.of.size:
        if keep is not None:
            boxes = boxes.taken(keep(boxes))
        radius, (lat, lon) = boxes.radii(), boxes.centres()
        done = radius <= min(least / _PART / 2, s2.WIDEST)
        tried = np.flatnonzero(radius <= min(least / 2, s2.WIDEST))  # a larger box hardly fits into a cell
        of, cells = s2.cells_of_circles(lat[tried], lon[tried], radius[tried], level)
        done[tried] |= np.bincount(of, minlength=tried.size) == 1
        of = tried[of]
        of, cells = of[done[of]], cells[done[of]]
        area = cell_area_km2(boxes.south, boxes.north, boxes.east - boxes.west)
        middle = s2.cell_ids(lat[of], lon[of], level) == cells
        found.append((boxes.of[of], cells, np.where(middle, area[of], 0.0)))
        boxes = boxes.taken(~done).halved()
    of, cells, area = (np.concatenate(columns) for columns in zip(*found, strict=True))
    return summed(of, cells, area)


def summed(of: I8, cell: I8, area: F8) -> tuple[I8, I8, F8]:
    """Rows with the same `of` and `cell` as one, with the sum of their areas; sorted by both."""
    order = np.lexsort((cell, of))
    of, cell, area = of[order], cell[order], area[order]
    first = np.flatnonzero(np.diff(of, prepend=-1 - of[:1]) | np.diff(cell, prepend=cell[:1]))
    return of[first], cell[first], np.add.reduceat(area, first) if first.size else area


def _least(level: int) -> float:
    """Least distance between opposite edges of a cell, radians."""
    return float(_LEAST_WIDTH / (1 << level))
