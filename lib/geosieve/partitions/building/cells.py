"""Built partitions as functions from points to regions, whatever they were built by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from geosieve.geo import s2
from geosieve.geo.arrays import F8, I8
from geosieve.geo.morton import Box
from geosieve.geo.outlines import unit_vectors
from geosieve.partitions.base import Published
from geosieve.partitions.building import adaptive_s2, quadtree
from geosieve.partitions.building.cell_tree import DEPTH, Cells, between
from geosieve.partitions.building.geocells import NearestCentroid
from geosieve.runtime.identity import content_digest, nanodegrees

S2_CELLS, QUADTREE, VORONOI = "s2_cells", "quadtree", "voronoi"

IDENTITY_VERSION = 1
"""Version of the facts that `identity` covers; it changes when they do."""


class CellAssigner(Protocol):
    """Disjoint regions; picklable."""

    def assign(self, lat: F8, lon: F8) -> I8:
        """Region index of each point (WGS-84 degrees, shape (n,)), or OUTSIDE."""
        ...

    def holes(self) -> tuple[NDArray[np.object_], F8]:
        """Shapes (lon, lat) and exact areas, km², that together fill what is OUTSIDE, where a grid may miss it."""
        ...


@dataclass(frozen=True)
class S2Cells:
    cells: Cells

    def assign(self, lat: F8, lon: F8) -> I8:
        return self.cells.locate(adaptive_s2.leaves(lat, lon))

    def holes(self) -> tuple[NDArray[np.object_], F8]:
        holes = between(self.cells, 6 << 2 * DEPTH)
        fine = holes.level > 0  # a whole face has no outline in the plane, and no grid misses it
        return adaptive_s2.outlines(adaptive_s2.ids_of(Cells(holes.first[fine], holes.level[fine])))


@dataclass(frozen=True)
class QuadtreeCells:
    root: Box
    cells: Cells

    def assign(self, lat: F8, lon: F8) -> I8:
        return self.cells.locate(self.root.leaves(lat, lon))

    def holes(self) -> tuple[NDArray[np.object_], F8]:
        return quadtree.outlines(self.root, between(self.cells, 1 << 2 * DEPTH))


@dataclass(frozen=True)
class VoronoiCells:
    """Nearest centroid; where there is a `coarse` partition, of those in the point's cell of it."""

    nearest: NearestCentroid
    coarse: NearestCentroid | None = None

    def assign(self, lat: F8, lon: F8) -> I8:
        points = unit_vectors(lat, lon)
        return self.nearest.assign(points, None if self.coarse is None else self.coarse.assign(points))

    def holes(self) -> tuple[NDArray[np.object_], F8]:
        return np.empty(0, object), np.empty(0)


@dataclass(frozen=True)
class Together:
    """Several partitions at once."""

    assigners: list[CellAssigner]

    def __call__(self, lat: F8, lon: F8) -> list[I8]:
        return [assigner.assign(lat, lon) for assigner in self.assigners]


@dataclass(frozen=True)
class S2Family:
    """Several partitions of S2 cells at once: the leaf of a point is found once for all."""

    members: list[Cells]

    def __call__(self, lat: F8, lon: F8) -> list[I8]:
        leaves = adaptive_s2.leaves(lat, lon)
        return [cells.locate(leaves) for cells in self.members]


def cell_assigner(kind: str, definition: dict[str, Any], regions: pa.Table) -> CellAssigner:
    """The function that a published partition of one of the kinds of this module is."""
    if kind == VORONOI:
        vectors = unit_vectors(regions["lat"].to_numpy(), regions["lon"].to_numpy())
        within = definition.get("within")
        if within is None:
            return VoronoiCells(NearestCentroid(vectors))
        coarse = NearestCentroid(unit_vectors(np.array(within["lat"]), np.array(within["lon"])))
        return VoronoiCells(NearestCentroid(vectors, regions["parent"].to_numpy()), coarse)
    names = np.array(regions["name"].to_pylist(), dtype=str)
    if kind == S2_CELLS:
        return S2Cells(adaptive_s2.cells_of(s2.from_tokens(names)))
    return QuadtreeCells(Box(**definition["bounds"]), quadtree.cells_of_names(names))


def identity(kind: str, definition: dict[str, Any], regions: pa.Table) -> str:
    """Hash of a partition of one of the kinds of this module: of its cells in the order of their indices.

    Neither names of partitions nor how the cells were found are part of it.
    """
    if kind == VORONOI:
        within = definition.get("within")
        return content_digest(
            kind,
            IDENTITY_VERSION,
            {
                "centroids": [nanodegrees(regions[column].to_numpy()) for column in ("lat", "lon")],
                "parents": None if within is None else regions["parent"].to_pylist(),
                "within": None if within is None else [nanodegrees(within[column]) for column in ("lat", "lon")],
            },
        )
    facts = {"cells": regions["name"].to_pylist(), "bounds": definition.get("bounds")}
    return content_digest(kind, IDENTITY_VERSION, facts)


@dataclass(frozen=True)
class Built:
    """A partition that was made: what is published of it, and how to ask it."""

    name: str
    published: Published

    @classmethod
    def of(cls, name: str, kind: str, definition: dict[str, Any], regions: pa.Table) -> Built:
        """A partition of one of the kinds of this module, with its hash."""
        return cls(name, Published(kind, identity(kind, definition, regions), definition, regions))

    def assigner(self) -> CellAssigner:
        """The partition as a function."""
        return cell_assigner(self.published.kind, self.published.definition, self.published.regions)
