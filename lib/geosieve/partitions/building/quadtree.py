"""Quadtrees over a box of latitude and longitude, as in OSV-5M: a box with too many images is split into four.

Boxes are split at their midpoints, not at medians. The published cells of OSV-5M (depth 10, 1000 images) show this:
every edge lies on a dyadic fraction of the bounding box of the data, to 1e-13 of a cell. Empty boxes are left out, and
class ids follow the Z curve (south-west, south-east, north-west, north-east).
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
_TOLERANCE = 1e-6  # fraction of a cell: published edges are sums of rounded halves


def names_of(cells: Cells) -> NDArray[np.str_]:
    """Return the quadkey of each cell: `q` and one digit per level, 0 to 3 for SW, SE, NW and NE. Shape (n,)."""
    deepest = int(cells.level.max(initial=0))
    digits = (cells.first[:, np.newaxis] >> (2 * (DEPTH - 1 - np.arange(deepest)))) & 3
    used = np.arange(deepest) < cells.level[:, np.newaxis]
    letters = np.column_stack([np.full(cells.first.size, ord("q"), np.uint32), np.where(used, _DIGITS[digits], 0)])
    # Unused digits are NUL: numpy drops them at the end of a string.
    return np.ascontiguousarray(letters, dtype=np.uint32).view(f"U{deepest + 1}")[:, 0]


def cells_of_names(names: NDArray[np.str_]) -> Cells:
    """Return the cells with these quadkeys, shape (n,): the inverse of `names_of`."""
    level = np.char.str_len(names) - 1
    deepest = int(level.max(initial=0))
    padded = np.char.ljust(names.astype(str), deepest + 1, "0").astype(f"U{deepest + 1}")
    digits = np.ascontiguousarray(padded).view(np.uint32).reshape(names.size, -1)[:, 1:].astype(np.int64) - ord("0")
    first = (digits << (2 * (DEPTH - 1 - np.arange(deepest)))).sum(axis=1, dtype=np.int64)
    return Cells(first, level.astype(np.int64))


def cells_of_boxes(south: F8, west: F8, north: F8, east: F8) -> tuple[Box, Cells]:
    """Return the root of the quadtree that contains these boxes, and the boxes as cells in the same order.

    The root is the bounding box of all boxes. Arguments are the edges of the boxes, degrees, shape (n,). InputError if
    the boxes do not belong to one quadtree that is split at midpoints, or if they overlap.
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
    """Return outlines (lon, lat in degrees) and areas (km², on the sphere of mean radius) of cells, both (n,)."""
    south, west, north, east = root.bounds(cells.first, cells.level)
    north, east = np.minimum(north, root.north), np.minimum(east, root.east)
    return shapely.box(west, south, east, north), cell_area_km2(south, north, east - west)
