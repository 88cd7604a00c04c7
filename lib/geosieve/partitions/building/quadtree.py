"""Quadtrees over a box of longitude and latitude, as OSV-5M's: a box with too many images is halved both ways.

The published cells of OSV-5M (depth 10, 1000 images) obey the midpoint and not the median: every edge lies, to 1e-13 of
a cell, on a dyadic fraction of the box that bounds the data, empty boxes are left out, and the class ids follow the
Z curve (south-west, south-east, north-west, north-east).
"""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray

from geosieve.geo.arrays import F8
from geosieve.geo.morton import Box
from geosieve.geo.sphere import cell_area_km2
from geosieve.partitions.building.cell_tree import DEPTH, Cells
from geosieve.runtime.errors import InputError

_DIGITS = np.frombuffer(b"0123", dtype=np.uint8).astype(np.uint32)
_TOLERANCE = 1e-6  # of a cell: published edges are sums of rounded halves


def names_of(cells: Cells) -> NDArray[np.str_]:
    """Quadkeys: q and a digit 0-3 a level (south-west, south-east, north-west, north-east)."""
    deepest = int(cells.level.max(initial=0))
    digits = (cells.first[:, np.newaxis] >> (2 * (DEPTH - 1 - np.arange(deepest)))) & 3
    used = np.arange(deepest) < cells.level[:, np.newaxis]
    letters = np.column_stack([np.full(cells.first.size, ord("q"), np.uint32), np.where(used, _DIGITS[digits], 0)])
    # numpy drops a string's trailing NULs
    return np.ascontiguousarray(letters, dtype=np.uint32).view(f"U{deepest + 1}")[:, 0]


def cells_of_names(names: NDArray[np.str_]) -> Cells:
    """The inverse of `names_of`."""
    level = np.char.str_len(names) - 1
    deepest = int(level.max(initial=0))
    padded = np.char.ljust(names.astype(str), deepest + 1, "0").astype(f"U{deepest + 1}")
    digits = np.ascontiguousarray(padded).view(np.uint32).reshape(names.size, -1)[:, 1:].astype(np.int64) - ord("0")
    first = (digits << (2 * (DEPTH - 1 - np.arange(deepest)))).sum(axis=1, dtype=np.int64)
    return Cells(first, level.astype(np.int64))


def cells_of_boxes(south: F8, west: F8, north: F8, east: F8) -> tuple[Box, Cells]:
    """The tree to which boxes (degrees, shape (n,)) belong, rooted at their common bounds.

    InputError if they are not boxes of one tree, or overlap.
    """
    root = Box(float(south.min()), float(west.min()), float(north.max()), float(east.max()))
    depth = np.log2((root.north - root.south) / (north - south))
    level = np.clip(np.round(depth), 0, DEPTH).astype(np.int64)
    row = (south - root.south) / (root.north - root.south) * 2.0**level
    column = (west - root.west) / (root.east - root.west) * 2.0**level
    width = (east - west) / (root.east - root.west) * 2.0**level
    off = np.abs(np.stack([row - np.round(row), column - np.round(column), width - 1.0, depth - level])).max(axis=0)
    if (off > _TOLERANCE).any():
        worst = int(off.argmax())
        raise InputError(
            f"the boxes are not of one quadtree with halves at midpoints: box {worst} is off by {off[worst]:.2g} "
            "of its size"
        )
    middle_lat, middle_lon = (south + north) / 2, (west + east) / 2
    first = root.leaves(middle_lat, middle_lon) & -(np.int64(1) << (2 * (DEPTH - level)))
    cells = Cells(first, level)
    overlapping = cells.overlapping()
    if overlapping.size:
        raise InputError(f"{overlapping.size} boxes overlap others, for instance box {overlapping[0]}")
    return root, cells


def outlines(root: Box, cells: Cells) -> tuple[NDArray[np.object_], F8]:
    """Outlines (lon, lat) and areas, km², on a sphere."""
    south, west, north, east = root.bounds(cells.first, cells.level)
    north, east = np.minimum(north, root.north), np.minimum(east, root.east)
    return shapely.box(west, south, east, north), cell_area_km2(south, north, east - west)
