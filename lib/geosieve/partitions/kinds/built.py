"""A partition that an earlier run of `build_partitions` published."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import shapely
from pydantic import Field

from geosieve.geo.arrays import F8, I8
from geosieve.geo.codes import OUTSIDE
from geosieve.partitions.base import Partition, PartitionDefinition, Published, Tables, kinds, parse_definition
from geosieve.partitions.building.cells import CellAssigner, cell_assigner, identity
from geosieve.partitions.pieces import Pieces
from geosieve.rasters.candidates import Candidates
from geosieve.runtime.config import RunId
from geosieve.runtime.errors import InputError


class Definition(PartitionDefinition):
    """Use a published partition with its regions and its hash. A point in none of its cells is OUTSIDE.

    `build` raises InputError if no such partition was published, or if its hash, computed again, has changed.
    """

    kind: Literal["built"]
    root: str = Field(description="root folder of the tables that build_partitions wrote")
    partition: str = Field(description="name of the partition in those tables")
    run: RunId = Field("latest", description="a run id or `latest`")

    def build(self, tables: Tables) -> Partition:
        found = tables.published(self.root, self.partition, self.run)
        if found.kind in kinds():
            definition = parse_definition({**found.definition, "name": self.name}, self.root)
            partition = definition.restored(found, tables)
            self._check("maps or outlines", found, partition.digest)
            return partition
        self._check("cells", found, identity(found.kind, found.definition, found.regions))
        return BuiltPartition(
            self.name, found.digest, found.regions, cell_assigner(found.kind, found.definition, found.regions)
        )

    def _check(self, what: str, found: Published, digest: str) -> None:
        """InputError if `digest`, the hash computed now, differs from the published one. `what`: for the message."""
        if digest != found.digest:
            raise InputError(
                f"the {what} of partition {self.partition!r} are no longer those that it was published with",
                where=self.root,
                hint="name the run of its maps' catalogue (rasters.run) if that is the reason, or build the partition "
                "anew; one that an earlier version of geosieve published must be",
            )


@dataclass(frozen=True)
class BuiltPartition:
    """A `Partition` of published cells: their `region_table`, and the function that finds a point's cell."""

    name: str
    digest: str
    table: pa.Table
    cells: CellAssigner

    @property
    def n_regions(self) -> int:
        return int(self.table.num_rows)

    def regions(self, observed: I8) -> pa.Table:
        return self.table

    def areas_km2(self) -> F8:
        return np.asarray(self.table["area_km2"].to_numpy())

    def pieces(self, width_km: float) -> Pieces:
        shapes = shapely.from_wkb(np.array(self.table["wkb"].to_pylist(), dtype=object))
        holes, hole_areas = self.cells.holes()
        return Pieces(
            np.concatenate([self.table["region"].to_numpy(), np.full(holes.size, OUTSIDE)]),
            np.concatenate([self.areas_km2(), hole_areas]),
            np.concatenate([shapes, holes]),
        ).narrow(width_km)

    def outlines(self) -> dict[int, bytes]:
        return {}

    def assigner(self) -> BuiltAssigner:
        return BuiltAssigner(self.cells)


@dataclass(frozen=True)
class BuiltAssigner:
    """`Assigner` of published cells. It needs no candidates."""

    cells: CellAssigner

    def assign(self, lat: F8, lon: F8, candidates: Candidates) -> I8:
        return self.cells.assign(lat, lon)
