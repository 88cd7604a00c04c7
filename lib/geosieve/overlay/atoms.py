"""An overlay in memory: atoms, what no partition tells apart, and the pixels that show where they lie."""

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
    """Atoms: region in each partition, shape (atoms, partitions), area in km², centroid in degrees, share of land.

    A region below 0 means that the partition has none there. `digest` is the overlay's hash; one that was not published
    has none.
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
        return len(self.labels)

    def column(self, partition: str) -> int:
        """Number of a partition among the overlay's. KeyError if it is none of them."""
        names = [p.name for p in self.partitions]
        if partition not in names:
            raise KeyError(f"partition {partition!r} is not in the overlay; {advice(partition, names, 'it has')}")
        return names.index(partition)

    @cached_property
    def region_areas_km2(self) -> list[F8]:
        """For each partition the areas of its regions, shape (n_regions,); 0 for one without an atom."""
        return [
            np.bincount(label[label >= 0], self.area_km2[label >= 0], p.n_regions).astype(np.float64)
            for p, label in zip(self.partitions, self.labels.T, strict=True)
        ]

    def atoms_of(self, labels: ArrayLike) -> tuple[I8, int]:
        """Atoms of points from their regions, (points, partitions) in the order of the overlay's partitions.

        That is what the partitions' `assign` says, or a row of table `labels`. Also how many points have a combination
        of regions that no atom has: such a point gets an atom of its region in the partition with most regions (if
        that has none there, or no atom, in the one with next most); of its atoms the one that agrees in most other
        partitions, then the largest, then the first. InputError if labels are no regions of the partitions.
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
        # Regions before what is outside of a partition, which is no place.
        for k, least in [*((k, 0) for k in by_size), *((k, -3) for k in by_size)]:
            left = np.flatnonzero((atom < 0) & (distinct[:, k] >= least))
            atom[left] = self._nearest(distinct[left], int(k))
        if (atom < 0).any():
            worst = distinct[np.flatnonzero(atom < 0)[0]].tolist()
            raise InputError(f"no atom has any of the regions {worst}", hint="are they labels of these partitions?")
        return atom[number], int(unseen[number].sum())

    def _nearest(self, wanted: I8, k: int) -> I8:
        """For each combination the best atom of its region in partition `k`, or -1 if it has none."""
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
    """For each of `rows` (n, k) the number of the row of `known` (m, k) that is equal to it, or -1."""
    # Both in one sorted list: equal rows get equal numbers.
    _, code = unique_rows(np.concatenate([known, rows]))
    at = np.full(int(code.max(initial=0)) + 1, -1, dtype=np.int64)
    at[code[: len(known)]] = np.arange(len(known))
    return np.asarray(at[code[len(known) :]])


@dataclass(frozen=True)
class AtomGrid:
    """Which atoms pixels belong to: the first pixels of runs, row · cols + column ascending, their atoms and shares.

    The runs of a mixed pixel begin at the same one. For maps; `Overlay.atoms_of` tells the atom of a point.
    """

    grid: EqualAngleGrid
    starts: I8
    atoms: I8
    share: F8
    digest: str = ""

    @classmethod
    def of_runs(cls, grid: EqualAngleGrid, row: I8, column: I8, atom: I8, share: F8, digest: str = "") -> AtomGrid:
        """From columns of `overlay_runs`, in any order; all of a row's runs or none. `digest`: the overlay's hash."""
        starts = row.astype(np.int64) * grid.cols + column
        order = np.lexsort((atom, -share, starts))
        return cls(grid, starts[order], atom[order], share[order], digest)

    def check(self, overlay: Overlay) -> None:
        """InputError if the pixels are not this overlay's."""
        if self.digest != overlay.digest:
            raise InputError(
                f"the pixels are of overlay {self.digest[:12]}…, the ranking of {overlay.digest[:12]}…",
                hint="atoms mean something only in their own overlay: read both from one run",
            )

    def drawn(self, lat: ArrayLike, lon: ArrayLike) -> I8:
        """For a picture: the atom with most of the pixel that holds each place. ValueError as EqualAngleGrid.pixels."""
        row, col = self.grid.pixels(lat, lon)
        begin = self.starts[np.searchsorted(self.starts, row * self.grid.cols + col, side="right") - 1]
        return np.asarray(self.atoms[np.searchsorted(self.starts, begin, side="left")])
