"""Trees in which every cell has four children, refined where there are many images. Used for S2 and for quadtrees.

Leaves are the cells of level 30, numbered along a space-filling curve: the Hilbert curve of S2, or the Z curve of a
quadtree. Every cell is an interval of leaves: a cell of level k contains 4^(30 - k) leaves, and the number of its first
leaf is a multiple of that.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geosieve.geo.arrays import I8
from geosieve.geo.codes import OUTSIDE

DEPTH = 30


def sizes(level: I8) -> I8:
    """Return the number of leaves in a cell of each level: 4^(30 - level), same shape."""
    return np.asarray(np.int64(1) << (2 * (DEPTH - level)))


@dataclass(frozen=True)
class Cells:
    """Disjoint cells: first leaf and level, both of shape (n,). The position in these arrays is the region index."""

    first: I8
    level: I8

    def locate(self, leaf: I8) -> I8:
        """Return the index of the cell that contains each leaf, or OUTSIDE. Negative leaves are OUTSIDE."""
        if self.first.size == 0:
            return np.full(leaf.shape, OUTSIDE, dtype=np.int64)
        order = np.argsort(self.first)
        first = self.first[order]
        last = first + sizes(self.level[order]) - 1
        at = np.maximum(np.searchsorted(first, leaf, side="right") - 1, 0)
        return np.where((leaf >= first[at]) & (leaf <= last[at]), order[at], OUTSIDE)

    def parents(self, coarse: Cells) -> I8:
        """Return, for each cell, the index of the cell of `coarse` that contains it, or OUTSIDE. Shape (n,)."""
        found = coarse.locate(self.first)
        return np.where((found != OUTSIDE) & (coarse.level[found] <= self.level), found, OUTSIDE)

    def overlapping(self) -> I8:
        """Return the indices of cells that overlap an earlier cell on the curve. Empty if all cells are disjoint."""
        order = np.argsort(self.first, kind="stable")
        first = self.first[order]
        reached = np.maximum.accumulate(first + sizes(self.level[order]) - 1)
        return np.asarray(order[1:][first[1:] <= reached[:-1]])


def between(cells: Cells, leaves: int) -> Cells:
    """Return the smallest set of cells that fills the holes between `cells` in a tree with this number of leaves.

    The tree has the leaves 0 to `leaves` - 1.
    """
    order = np.argsort(cells.first)
    first, last = cells.first[order], cells.first[order] + sizes(cells.level[order])
    start, end = np.r_[0, last], np.r_[first, leaves]
    ladder = sizes(np.arange(DEPTH + 1))
    found: list[I8] = []
    levels: list[I8] = []
    while (open_ := start < end).any():
        start, end = start[open_], end[open_]
        # Find the largest cell that begins at `start` and does not extend beyond `end`.
        fits = (start[:, np.newaxis] % ladder == 0) & (ladder <= (end - start)[:, np.newaxis])
        found.append(start)
        levels.append(fits.argmax(axis=1))
        start = start + ladder[levels[-1]]
    return Cells(np.concatenate(found or [start]), np.concatenate(levels or [start]))


@dataclass(frozen=True)
class Histogram:
    """Number of images per cell: first leaf of the cell, ascending, and images in it, both of shape (n,).

    The cells may have different levels. For `refine`, a cell with more than `maximum` images must be at level `depth`
    or deeper. A histogram of leaves can always be refined.
    """

    first: I8
    images: I8

    @classmethod
    def of(cls, leaves: I8) -> Histogram:
        """Return the histogram of leaves, given the leaf of each image. Negative leaves are left out."""
        first, images = np.unique(leaves[leaves >= 0], return_counts=True)
        return cls(first, images.astype(np.int64))


def refine(histogram: Histogram, start: int, depth: int, maximum: int, minimum: int) -> tuple[Cells, I8]:
    """Split cells that contain more than `maximum` images, from level `start` down to level `depth` at most.

    Cells with at most `minimum` images are dropped, once at level `start` and once at the end; 0 drops only empty ones.
    This is the method of PlaNet (Weyand et al. 2016) and GeoEstimation (Müller-Budack et al. 2018).

    Returns the cells in the order of the curve, and the number of images in each, shape (n,).
    """
    total = np.r_[0, np.cumsum(histogram.images)]
    first = np.unique(histogram.first & -sizes(np.array(start)))
    done: list[tuple[I8, I8, I8]] = []
    for level in range(start, depth + 1):
        size = sizes(np.array(level))
        images = total[np.searchsorted(histogram.first, first + size)] - total[np.searchsorted(histogram.first, first)]
        kept = images > (minimum if level == start else 0)
        first, images = first[kept], images[kept]
        split = (images > maximum) & (level < depth)
        done.append((first[~split], np.full((~split).sum(), level), images[~split]))
        first = (first[split][:, np.newaxis] + np.arange(4) * (size >> 2)).ravel()
    begins, levels, images = (np.concatenate(column) for column in zip(*done, strict=True))
    order = np.argsort(begins)
    order = order[images[order] > minimum]
    return Cells(begins[order], levels[order]), images[order]
