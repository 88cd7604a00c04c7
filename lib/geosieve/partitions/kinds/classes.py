"""Partition by the classes of a raster, such as land cover or climate. Several classes may form one region."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
from pydantic import field_validator

from geosieve.geo.arrays import F8, I8
from geosieve.geo.codes import UNMAPPED
from geosieve.partitions.base import PartitionDefinition, Tables, region_table
from geosieve.partitions.mapped import MapAssigner
from geosieve.partitions.pieces import NO_PIECES, Pieces
from geosieve.rasters.mosaic import Mosaic
from geosieve.runtime.config import Config


class RasterClass(Config):
    """A region: its name and the pixel values that belong to it."""

    name: str
    values: list[int]


class Definition(PartitionDefinition):
    """One region per entry of `classes`, in this order. ValueError if two entries share a value, or none has any.

    Values are compared as stored in the file, without scale and offset. Points with a value in none of the classes are
    labelled UNMAPPED and counted.
    """

    kind: Literal["classes"]
    collection: str
    classes: list[RasterClass]

    @field_validator("classes")
    @classmethod
    def _disjoint(cls, classes: list[RasterClass]) -> list[RasterClass]:
        values = [value for c in classes for value in c.values]
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            raise ValueError(f"values {twice} stand in more than one class, or twice in one")
        if not values:
            raise ValueError("no class has a value")
        return classes

    def build(self, tables: Tables) -> ClassesPartition:
        rasters = Mosaic.of(tables.catalog(self.collection))
        facts = {"values": [sorted(c.values) for c in self.classes], "map": rasters.facts()}
        return ClassesPartition(self, rasters, self.content_digest(facts))


@dataclass(frozen=True)
class ClassesPartition:
    """A `Partition` by the classes of a map. It is `Doubtful`: a class may contain the value that means no data."""

    definition: Definition
    rasters: Mosaic
    digest: str

    @property
    def name(self) -> str:
        return self.definition.name

    @property
    def n_regions(self) -> int:
        return len(self.definition.classes)

    def doubts(self) -> list[str]:
        never = self.rasters.nodata()
        return [
            f"partition {self.name}: class {c.name!r} can never have the value {value}, which means no data in "
            f"collection {self.definition.collection!r}"
            for c in self.definition.classes
            for value in c.values
            if never == {float(value)}
        ]

    def regions(self, observed: I8) -> pa.Table:
        return region_table([c.name for c in self.definition.classes])

    def areas_km2(self) -> None:
        return None

    def pieces(self, width_km: float) -> Pieces:
        return NO_PIECES

    def outlines(self) -> dict[int, bytes]:
        return self.rasters.outlines()

    def assigner(self) -> ClassesAssigner:
        pairs = sorted((v, i) for i, c in enumerate(self.definition.classes) for v in c.values)
        known, region = np.array(pairs).T
        return ClassesAssigner(self.rasters.reader, "stored", known, region)


@dataclass(frozen=True)
class ClassesAssigner(MapAssigner):
    """Region by pixel value: `region[i]` belongs to value `known[i]`; `known` is sorted. Both have shape (values,)."""

    known: I8
    region: I8

    def regions_of(self, values: F8) -> I8:
        at = np.minimum(np.searchsorted(self.known, values), self.known.size - 1)
        return np.where(self.known[at] == values, self.region[at], UNMAPPED)
