"""Trees of cells with four children each, refined where there are many images: S2 and quadtrees alike.

A cell is an interval of leaves. A leaf is the index of a cell at depth 30 along the curve that fills the tree (S2's
Hilbert curve, a quadtree's Z): a cell of level k begins at a multiple of 4^(30 - k) and is that long.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geosieve.geo.arrays import I8
from geosieve.geo.codes import OUTSIDE

DEPTH = 30


def sizes(level: I8) -> I8:
    """How many leaves a cell of each level holds."""
    return np.asarray(np.int64(1) << (2 * (DEPTH - level)))


@dataclass(frozen=True)
class Cells:
    """Disjoint cells: first leaf and level, shape (n,). The region index is the place in these arrays."""

    first: I8
    level: I8

    def locate(self, leaf: I8) -> I8:
        """The cell that holds each leaf, or OUTSIDE (also for leaves below 0)."""
        if self.first.size == 0:
            return np.full(leaf.shape, OUTSIDE, dtype=np.int64)
        order = np.argsort(self.first)
        first = self.first[order]
        last = first + sizes(self.level[order]) - 1
        at = np.maximum(np.searchsorted(first, leaf, side="right") - 1, 0)
        return np.where((leaf >= first[at]) & (leaf <= last[at]), order[at], OUTSIDE)

    def parents(self, coarse: Cells) -> I8:
        """For each cell the one of `coarse` that contains it, or OUTSIDE."""
        found = coarse.locate(self.first)
        return np.where((found != OUTSIDE) & (coarse.level[found] <= self.level), found, OUTSIDE)

    def overlapping(self) -> I8:
        """Indices of cells that overlap the cell before them in the order of the curve."""
        order = np.argsort(self.first, kind="stable")
        first = self.first[order]
        reached = np.maximum.accumulate(first + sizes(self.level[order]) - 1)
        return np.asarray(order[1:][first[1:] <= reached[:-1]])


def between(cells: Cells, leaves: int) -> Cells:
    """The holes among `cells` in a tree of so many leaves: the fewest cells that fill them, from the first leaf on."""
    order = np.argsort(cells.first)
    first, last = cells.first[order], cells.first[order] + sizes(cells.level[order])
    start, end = np.r_[0, last], np.r_[first, leaves]
    ladder = sizes(np.arange(DEPTH + 1))
    found: list[I8] = []
    levels: list[I8] = []
    while (open_ := start < end).any():
        start, end = start[open_], end[open_]
        # The largest cell that begins at `start` and does not reach beyond `end`.
        fits = (start[:, np.newaxis] % ladder == 0) & (ladder <= (end - start)[:, np.newaxis])
        found.append(start)
        levels.append(fits.argmax(axis=1))
        start = start + ladder[levels[-1]]
    return Cells(np.concatenate(found or [start]), np.concatenate(levels or [start]))


@dataclass(frozen=True)
class Histogram:
    """Images by cell, sorted: first leaf and number, shape (n,).

    It must be as deep as a refinement asks: no cell of it may hold more images than `maximum` and yet not be at the
    greatest level. Leaves are always deep enough.
    """

    first: I8
    images: I8

    @classmethod
    def of(cls, leaves: I8) -> Histogram:
        """Images by leaf; leaves below 0 are left out."""
        first, images = np.unique(leaves[leaves >= 0], return_counts=True)
        return cls(first, images.astype(np.int64))


def refine(histogram: Histogram, start: int, depth: int, maximum: int, minimum: int) -> tuple[Cells, I8]:
    """Split the cells of level `start` while they hold more than `maximum` images, down to level `depth`.

    Cells with at most `minimum` images are dropped at the start and at the end (METHODS: PlaNet, GeoEstimation), with
    0 only empty ones. Returns the cells in the order of the curve and the images in each.
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
