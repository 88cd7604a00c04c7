"""Partition into all S2 cells of one level. The region index is the position of the cell in the order of S2 ids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from geosieve.geo import s2
from geosieve.geo.arrays import F8, I8
from geosieve.geo.outlines import areas_km2
from geosieve.partitions.base import PartitionDefinition, Tables, region_table
from geosieve.partitions.building import adaptive_s2
from geosieve.partitions.pieces import NO_PIECES, Pieces
from geosieve.rasters.candidates import Candidates
from geosieve.runtime.errors import ConfigError

_AT_ONCE = 500_000  # cells per batch: limits the memory for their corners
_MOST_PIECES = 1_000_000  # the driver keeps an outline of each piece in memory


class Definition(PartitionDefinition):
    """All S2 cells of one level, 0 (6 cells) to 30."""

    kind: Literal["s2"]
    level: int = Field(ge=0, le=30)

    def build(self, tables: Tables) -> S2Partition:
        return S2Partition(self.name, self.level, self.content_digest({"level": self.level}))


@dataclass(frozen=True)
class S2Partition:
    """A `Partition` into 6 · 4^level cells. Its `regions` have the cells' tokens as names, and no outlines.

    `pieces` raises ConfigError if more than a million cells are about as narrow as `width_km`.
    """

    name: str
    level: int
    digest: str

    @property
    def n_regions(self) -> int:
        return int(6 * 4**self.level)

    def regions(self, observed: I8) -> pa.Table:
        return region_table(s2.tokens(s2.from_positions(observed, self.level)), observed)

    def areas_km2(self) -> F8:
        areas = np.empty(self.n_regions)
        for first in range(0, areas.size, _AT_ONCE):
            index = np.arange(first, min(first + _AT_ONCE, areas.size))
            areas[index] = areas_km2(s2.corners(s2.from_positions(index, self.level)))
        return areas

    def pieces(self, width_km: float) -> Pieces:
        if self.level == 0:
            return NO_PIECES
        area = self.areas_km2()
        # The mean width of a cell is about half its side. Do not make outlines of cells that are clearly wider.
        few = np.flatnonzero(np.sqrt(area) < 2.5 * width_km)
        if few.size > _MOST_PIECES:
            raise ConfigError(
                f"partition {self.name}: {few.size} cells of level {self.level} are smaller than a pixel",
                hint="take a coarser level, or smaller pixels",
            )
        return Pieces(few, area[few], adaptive_s2.outlines(s2.from_positions(few, self.level))[0]).narrow(width_km)

    def outlines(self) -> dict[int, bytes]:
        return {}

    def assigner(self) -> S2Assigner:
        return S2Assigner(self.level)


@dataclass(frozen=True)
class S2Assigner:
    """`Assigner` to the S2 cells of one level. It needs no candidates."""

    level: int

    def assign(self, lat: F8, lon: F8, candidates: Candidates) -> I8:
        return s2.positions(s2.cell_ids(lat, lon, self.level))
