"""S2 cells of mixed levels, as in adaptive partitions (Weyand et al. 2016, Müller-Budack et al. 2018)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geosieve.geo import s2
from geosieve.geo.arrays import F8, I8
from geosieve.geo.outlines import areas_km2, planar
from geosieve.partitions.building.cell_tree import DEPTH, Cells
from geosieve.runtime.errors import InputError


def leaves(lat: F8, lon: F8) -> I8:
    """Return the leaf of each point (degrees, shape (n,)): its position among all S2 cells of level 30."""
    return s2.positions(s2.cell_ids(lat, lon))


def cells_of(ids: I8) -> Cells:
    """Convert S2 ids of mixed levels to `Cells` in the same order. InputError if cells overlap."""
    level = s2.levels(ids)
    cells = Cells(s2.positions(ids) << (2 * (DEPTH - level)), level)
    overlapping = cells.overlapping()
    if overlapping.size:
        examples = ", ".join(s2.tokens(ids[overlapping[:5]]))
        raise InputError(f"{overlapping.size} cells lie inside others or stand twice: {examples}")
    return cells


def ids_of(cells: Cells) -> I8:
    """Return the S2 ids of cells as signed integers, shape (n,)."""
    lowest = np.int64(1) << (2 * (DEPTH - cells.level))
    return np.asarray((cells.first << 1) | lowest)


def outlines(ids: I8) -> tuple[NDArray[np.object_], F8]:
    """Return outlines (lon, lat in degrees) and areas (km², mean radius) of S2 cells of level 1 or deeper, (n,)."""
    level = s2.levels(ids)
    corners = s2.corners(ids)
    shapes = np.empty(ids.size, dtype=object)
    for one in np.unique(level):  # `planar` gives all outlines of a call the same number of vertices
        shapes[level == one] = planar(corners[level == one])
    return shapes, areas_km2(corners)
