"""Partitions of the kinds that are built from cells: the functions from points to regions, and their hashes."""

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
"""Version of the list of facts that `identity` covers. Increase it when that list changes."""


class CellAssigner(Protocol):
    """Function from points to disjoint regions. It must be picklable."""

    def assign(self, lat: F8, lon: F8) -> I8:
        """Return the region index of each point (WGS-84 degrees, shape (n,)), or OUTSIDE."""
        ...

    def holes(self) -> tuple[NDArray[np.object_], F8]:
        """Return the holes between regions as cells: shapes (lon, lat in degrees) and exact areas (km²), both (n,).

        Areas so large that no grid misses them may be left out.
        """
        ...


@dataclass(frozen=True)
class S2Cells:
    """`CellAssigner` of S2 cells of mixed levels. Holes of level 0 are left out."""

    cells: Cells

    def assign(self, lat: F8, lon: F8) -> I8:
        return self.cells.locate(adaptive_s2.leaves(lat, lon))

    def holes(self) -> tuple[NDArray[np.object_], F8]:
        holes = between(self.cells, 6 << 2 * DEPTH)
        fine = holes.level > 0  # a whole face has no planar outline, and no grid misses it
        return adaptive_s2.outlines(adaptive_s2.ids_of(Cells(holes.first[fine], holes.level[fine])))


@dataclass(frozen=True)
class QuadtreeCells:
    """`CellAssigner` of quadtree cells in the box `root`. Its holes do not include the area outside the box."""

    root: Box
    cells: Cells

    def assign(self, lat: F8, lon: F8) -> I8:
        return self.cells.locate(self.root.leaves(lat, lon))

    def holes(self) -> tuple[NDArray[np.object_], F8]:
        return quadtree.outlines(self.root, between(self.cells, 1 << 2 * DEPTH))


@dataclass(frozen=True)
class VoronoiCells:
    """`CellAssigner` to the nearest centroid. It has no holes.

    If there is a `coarse` partition, only the centroids in the point's coarse cell are considered.
    """

    nearest: NearestCentroid
    coarse: NearestCentroid | None = None

    def assign(self, lat: F8, lon: F8) -> I8:
        points = unit_vectors(lat, lon)
        return self.nearest.assign(points, None if self.coarse is None else self.coarse.assign(points))

    def holes(self) -> tuple[NDArray[np.object_], F8]:
        return np.empty(0, object), np.empty(0)


@dataclass(frozen=True)
class Together:
    """Several partitions as one function: the region index of each point in every partition."""

    assigners: list[CellAssigner]

    def __call__(self, lat: F8, lon: F8) -> list[I8]:
        return [assigner.assign(lat, lon) for assigner in self.assigners]


@dataclass(frozen=True)
class S2Family:
    """Several partitions into S2 cells as one function, which computes the leaf of each point only once."""

    members: list[Cells]

    def __call__(self, lat: F8, lon: F8) -> list[I8]:
        leaves = adaptive_s2.leaves(lat, lon)
        return [cells.locate(leaves) for cells in self.members]


def cell_assigner(kind: str, definition: dict[str, Any], regions: pa.Table) -> CellAssigner:
    """Return the function from points to regions of a published partition.

    kind: `s2_cells`, `quadtree` or `voronoi`.
    definition: the published definition; `bounds` of a quadtree and `within` of Voronoi cells are used.
    regions: the published `region_table`.

    InputError if S2 cells overlap.
    """
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
    """Return the hash of a partition, computed from its cells in the order of their region indices.

    The name of the partition and the method that found the cells do not matter. Arguments as of `cell_assigner`.
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
    """A partition that was just built: its name and what is published."""

    name: str
    published: Published

    @classmethod
    def of(cls, name: str, kind: str, definition: dict[str, Any], regions: pa.Table) -> Built:
        """Return a partition with its hash. Arguments as of `cell_assigner`."""
        return cls(name, Published(kind, identity(kind, definition, regions), definition, regions))

    def assigner(self) -> CellAssigner:
        """Return the function from points to regions."""
        return cell_assigner(self.published.kind, self.published.definition, self.published.regions)
