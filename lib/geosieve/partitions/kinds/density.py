"""Partition into density buckets of equal width in log10 of the pixel value (Bianco, Eigen and Gormish)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import model_validator

from geosieve.geo.arrays import F8, I8
from geosieve.partitions.base import PartitionDefinition, Tables, region_table
from geosieve.partitions.mapped import MapAssigner
from geosieve.partitions.pieces import NO_PIECES, Pieces
from geosieve.rasters.mosaic import Mosaic
from geosieve.runtime.errors import ConfigError

_AS_STORED = (1.0, 0.0)


class Definition(PartitionDefinition):
    """One bucket per name, from the lowest to the highest values.

    edges: the inner limits of the buckets, ascending. If not given, buckets have equal widths in log10 between the
        least positive and the greatest value of the collection. Its catalogue must then have statistics.
    units: `physical` applies the scale and offset of each file; `stored` takes values as they are in the file.

    A value equal to a limit belongs to the higher bucket. Values below all limits belong to the first bucket.
    ConfigError from `build` if the edges cannot be derived from the statistics.
    """

    kind: Literal["density"]
    collection: str
    names: list[str] = ["lowest", "low", "medium", "high"]
    edges: list[float] | None = None
    units: Literal["physical", "stored"] = "physical"

    @model_validator(mode="after")
    def _fitting(self) -> Definition:
        if self.edges is not None:
            if len(self.edges) != len(self.names) - 1:
                raise ValueError(f"{len(self.names)} buckets have {len(self.names) - 1} inner edges")
            if any(not b > a for a, b in zip([-math.inf, *self.edges], [*self.edges, math.inf], strict=True)):
                raise ValueError("edges must be finite and ascending")
        return self

    def build(self, tables: Tables) -> DensityPartition:
        rasters = Mosaic.of(tables.catalog(self.collection))
        edges = tuple(self.edges) if self.edges is not None else self._equal_widths(rasters)
        facts: dict[str, Any] = {"edges": edges, "map": rasters.facts()}
        if self.units == "physical" and (rasters.scalings() != _AS_STORED).any():
            facts["scalings"] = rasters.scalings()
        return DensityPartition(self, rasters, edges, self.content_digest(facts))

    def fitted(self, tables: Tables) -> Definition:
        if self.edges is not None:
            return self
        return self.model_copy(update={"edges": list(self._equal_widths(Mosaic.of(tables.catalog(self.collection))))})

    def _equal_widths(self, rasters: Mosaic) -> tuple[float, ...]:
        if self.units == "stored" and (rasters.scalings() != _AS_STORED).any():
            raise ConfigError(
                f"partition {self.name}: statistics of {self.collection!r} are in units, not in stored values",
                hint="give edges, or leave out `units: stored`",
            )
        limits = rasters.statistics()
        if limits is None or limits[0] >= limits[1]:
            raise ConfigError(
                f"partition {self.name}: the catalogue of {self.collection!r} has no statistics to fit buckets to",
                hint="run catalog_rasters with --set rasters.statistics=true, or give edges",
            )
        edges = 10.0 ** np.linspace(np.log10(limits[0]), np.log10(limits[1]), len(self.names) + 1)
        return tuple(edges[1:-1].tolist())


@dataclass(frozen=True)
class DensityPartition:
    """A `Partition` into buckets of a map's values, with the inner limits `edges`."""

    definition: Definition
    rasters: Mosaic
    edges: tuple[float, ...]
    digest: str

    @property
    def name(self) -> str:
        return self.definition.name

    @property
    def n_regions(self) -> int:
        return len(self.definition.names)

    def regions(self, observed: I8) -> pa.Table:
        least = "0" if all(edge > 0 for edge in self.edges) else "-inf"
        limits = [least, *(f"{edge:.6g}" for edge in self.edges), "inf"]
        names = self.definition.names
        return region_table([f"{name} [{limits[i]}, {limits[i + 1]})" for i, name in enumerate(names)])

    def areas_km2(self) -> None:
        return None

    def pieces(self, width_km: float) -> Pieces:
        return NO_PIECES

    def outlines(self) -> dict[int, bytes]:
        return self.rasters.outlines()

    def assigner(self) -> DensityAssigner:
        return DensityAssigner(self.rasters.reader, self.definition.units, self.edges)


@dataclass(frozen=True)
class DensityAssigner(MapAssigner):
    """Region by pixel value: the number of `edges` (ascending) that are at most the value."""

    edges: tuple[float, ...]

    def regions_of(self, values: F8) -> I8:
        return np.searchsorted(np.array(self.edges), values, side="right")
