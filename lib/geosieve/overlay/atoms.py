"""An overlay in memory: its atoms, and the grid pixels that show where they lie.

An overlay is the common refinement of several partitions. An atom is the set of all points that have the same region in
every partition.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from geosieve.geo.arrays import F8, I8
from geosieve.geo.grid import EqualAngleGrid
from geosieve.geo.ranges import ranges
from geosieve.overlay.spans import unique_rows
from geosieve.runtime.errors import InputError
from geosieve.runtime.names import advice


@dataclass(frozen=True)
class OverlayPartition:
    """A partition of an overlay: name, content hash, number of regions."""

    name: str
    digest: str
    n_regions: int


@dataclass(frozen=True)
class Overlay:
    """The atoms of several partitions.

    `labels`, shape (atoms, partitions), has the region index of each atom in each partition; a negative value means
    that the atom lies in no region of that partition. The other arrays have shape (atoms,): area in km², centroid (lat,
    lon) in degrees, and the share of the area that is land (NaN without a map of land). `digest` is the overlay's hash,
    empty if the overlay was not published.
    """

    partitions: tuple[OverlayPartition, ...]
    labels: I8
    area_km2: F8
    lat: F8
    lon: F8
    land_share: F8
    digest: str = ""

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return len(self.labels)

    def column(self, partition: str) -> int:
        """Column of `labels` that belongs to a partition. KeyError if the overlay does not have this partition."""
        names = [p.name for p in self.partitions]
        if partition not in names:
            raise KeyError(f"partition {partition!r} is not in the overlay; {advice(partition, names, 'it has')}")
        return names.index(partition)

    @cached_property
    def region_areas_km2(self) -> list[F8]:
        """Areas of the regions of each partition, km², shape (n_regions,); 0 for a region without an atom."""
        return [
            np.bincount(label[label >= 0], self.area_km2[label >= 0], p.n_regions).astype(np.float64)
            for p, label in zip(self.partitions, self.labels.T, strict=True)
        ]

    def atoms_of(self, labels: ArrayLike) -> tuple[I8, int]:
        """Find the atom of each point from the point's regions.

        `labels`, shape (points, partitions), has a region index per point and partition, in the order of the overlay's
        partitions, as the partitions' `assign` or the table `labels` gives them.

        Returns the atoms, (points,), and the number of points whose combination of regions no atom has. Such a point
        gets an atom of its region in the partition with the most regions. If the point has no region there, or the
        region has no atom, the partition with the next most regions decides. If no region helps, the negative labels
        are tried in the same way. Among the region's atoms, the one that agrees in most other partitions is taken, then
        the largest, then the first.

        InputError if the shape is wrong, a region index is too large, or no atom has any of a point's labels.
        """
        points = np.asarray(labels, dtype=np.int64)
        if points.ndim != 2 or points.shape[1] != len(self.partitions):
            raise InputError(f"labels have shape {points.shape}, not (points, {len(self.partitions)})")
        for p, column in zip(self.partitions, points.T, strict=True):
            if column.size and column.max() >= p.n_regions:
                raise InputError(f"partition {p.name} has {p.n_regions} regions, and a point is in {column.max()}")
        distinct, number = unique_rows(points)
        atom = row_numbers(self.labels, distinct)
        unseen = atom < 0
        by_size = np.argsort([-p.n_regions for p in self.partitions], kind="stable")
        # Try the regions of all partitions first, because a negative label says little about the place.
        for k, least in [*((k, 0) for k in by_size), *((k, -3) for k in by_size)]:
            left = np.flatnonzero((atom < 0) & (distinct[:, k] >= least))
            atom[left] = self._nearest(distinct[left], int(k))
        if (atom < 0).any():
            worst = distinct[np.flatnonzero(atom < 0)[0]].tolist()
            raise InputError(f"no atom has any of the regions {worst}", hint="are they labels of these partitions?")
        return atom[number], int(unseen[number].sum())

    def _nearest(self, wanted: I8, k: int) -> I8:
        """For each combination of regions (n, partitions), the best atom in its region of partition `k`, or -1."""
        order = np.argsort(self.labels[:, k], kind="stable")
        ordered = self.labels[order, k]
        first, last = (np.searchsorted(ordered, wanted[:, k], side=side) for side in ("left", "right"))
        counts = last - first
        of = np.repeat(np.arange(len(wanted)), counts)
        atom = order[ranges(first, counts)]
        agree = (self.labels[atom] == wanted[of]).sum(axis=1)
        best = np.lexsort((atom, -self.area_km2[atom], -agree, of))
        found = np.full(len(wanted), -1, dtype=np.int64)
        which, at = np.unique(of[best], return_index=True)
        found[which] = atom[best[at]]
        return found


def row_numbers(known: I8, rows: I8) -> I8:
    """Index in `known` (m, k) of the row that equals each row of `rows` (n, k), shape (n,); -1 where there is none."""
    # Numbered together, so that equal rows get equal numbers.
    _, code = unique_rows(np.concatenate([known, rows]))
    at = np.full(int(code.max(initial=0)) + 1, -1, dtype=np.int64)
    at[code[: len(known)]] = np.arange(len(known))
    return np.asarray(at[code[len(known) :]])


@dataclass(frozen=True)
class AtomGrid:
    """The atoms of the grid's pixels, as runs, for maps. For the exact atom of a point, use `Overlay.atoms_of`.

    `starts` has the first pixel of each run as row · cols + column, ascending; a run ends where the next one begins.
    `atoms` has the atom of each run, `share` its share of the pixels' area. A mixed pixel has several runs with the
    same start.
    """

    grid: EqualAngleGrid
    starts: I8
    atoms: I8
    share: F8
    digest: str = ""

    @classmethod
    def of_runs(cls, grid: EqualAngleGrid, row: I8, column: I8, atom: I8, share: F8, digest: str = "") -> AtomGrid:
        """Build from columns of the table `overlay_runs`, in any order.

        Grid rows may be left out as a whole, but then `drawn` is right only in the rows given. `digest`: the overlay's
        hash.
        """
        starts = row.astype(np.int64) * grid.cols + column
        order = np.lexsort((atom, -share, starts))
        return cls(grid, starts[order], atom[order], share[order], digest)

    def check(self, overlay: Overlay) -> None:
        """Raise InputError if the pixels belong to another overlay."""
        if self.digest != overlay.digest:
            raise InputError(
                f"the pixels are of overlay {self.digest[:12]}…, the ranking of {overlay.digest[:12]}…",
                hint="atoms mean something only in their own overlay: read both from one run",
            )

    def drawn(self, lat: ArrayLike, lon: ArrayLike) -> I8:
        """Atom with the largest share of the pixel that contains each point, for drawing.

        lat, lon: degrees, shapes broadcast. ValueError as in `EqualAngleGrid.pixels`.
        """
        row, col = self.grid.pixels(lat, lon)
        begin = self.starts[np.searchsorted(self.starts, row * self.grid.cols + col, side="right") - 1]
        return np.asarray(self.atoms[np.searchsorted(self.starts, begin, side="left")])

    def at(self, lat: ArrayLike, lon: ArrayLike) -> tuple[I8, I8]:
        """The atoms of the pixels that contain points: how many of each, (points,), and all of them, one after another.

        lat, lon: degrees, (points,). Only a mixed pixel has several. ValueError as in `EqualAngleGrid.pixels`.
        """
        row, col = self.grid.pixels(lat, lon)
        begin = self.starts[np.searchsorted(self.starts, row * self.grid.cols + col, side="right") - 1]
        first, last = (np.searchsorted(self.starts, begin, side=side) for side in ("left", "right"))
        return np.asarray(last - first), self.atoms[ranges(first, last - first)]
