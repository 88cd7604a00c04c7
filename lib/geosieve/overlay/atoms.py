"""An overlay in memory: atoms, the pixels that no partition tells apart, and where they lie."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geosieve.geo.grid import EqualAngleGrid
from geosieve.runtime.names import advice

F8 = NDArray[np.float64]
I8 = NDArray[np.int64]


@dataclass(frozen=True)
class OverlayPartition:
    """A partition of an overlay: name, content hash, number of regions."""

    name: str
    digest: str
    n_regions: int


@dataclass(frozen=True)
class Overlay:
    """Atoms: region in each partition, shape (atoms, partitions), area in km², centroid in degrees, share of land.

    A region below 0 means that the partition has none there.
    """

    partitions: tuple[OverlayPartition, ...]
    labels: I8
    area_km2: F8
    lat: F8
    lon: F8
    land_share: F8

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
        """For each partition the areas of its regions, shape (n_regions,); 0 for one without a pixel."""
        return [
            np.bincount(label[label >= 0], self.area_km2[label >= 0], p.n_regions).astype(np.float64)
            for p, label in zip(self.partitions, self.labels.T, strict=True)
        ]


@dataclass(frozen=True)
class AtomGrid:
    """Which atom each pixel belongs to: the first pixels of runs, row · cols + column ascending, and their atoms."""

    grid: EqualAngleGrid
    starts: I8
    atoms: I8

    @classmethod
    def of_runs(cls, grid: EqualAngleGrid, row: I8, column: I8, atom: I8) -> AtomGrid:
        """From columns of `overlay_runs`, in any order; all of a row's runs or none."""
        starts = row.astype(np.int64) * grid.cols + column
        order = np.argsort(starts, kind="stable")
        return cls(grid, starts[order], atom[order])

    def locate(self, lat: ArrayLike, lon: ArrayLike) -> I8:
        """Atom of the pixel that holds each point. WGS-84 degrees; ValueError as EqualAngleGrid.pixels."""
        row, col = self.grid.pixels(lat, lon)
        return np.asarray(self.atoms[np.searchsorted(self.starts, row * self.grid.cols + col, side="right") - 1])
