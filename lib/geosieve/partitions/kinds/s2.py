"""Partition into the S2 cells of one level; the index is the cell's place in S2 id order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from geosieve.geo import s2
from geosieve.partitions.base import PartitionDefinition, Tables, region_table
from geosieve.partitions.nearby import Nearby

F8 = NDArray[np.float64]
I8 = NDArray[np.int64]


class Definition(PartitionDefinition):
    kind: Literal["s2"]
    level: int = Field(ge=0, le=30)

    def build(self, tables: Tables) -> S2Partition:
        return S2Partition(self.name, self.level, self.content_digest({"level": self.level}))


@dataclass(frozen=True)
class S2Partition:
    name: str
    level: int
    digest: str

    @property
    def n_regions(self) -> int:
        return int(6 * 4**self.level)

    def regions(self, observed: I8) -> pa.Table:
        return region_table(s2.tokens(s2.from_positions(observed, self.level)), observed)

    def outlines(self) -> dict[int, bytes]:
        return {}

    def assign(self, lat: F8, lon: F8, nearby: Nearby) -> I8:
        return s2.positions(s2.cell_ids(lat, lon, self.level))
