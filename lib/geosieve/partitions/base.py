"""The idea of a partition: a finite set of disjoint regions, as a function from (lat, lon) to a region index.

A kind of partition is one module in `geosieve.partitions.kinds` with a class `Definition`: the configuration, whose
`build` returns the thing that workers label with. Nothing else has to be changed to add one.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from geosieve.geo.arrays import F8, I8
from geosieve.partitions.pieces import Pieces
from geosieve.rasters.candidates import Candidates
from geosieve.runtime.config import Config, validate
from geosieve.runtime.errors import ConfigError
from geosieve.runtime.identity import content_digest
from geosieve.runtime.names import advice

_REGIONS = pa.schema(
    [
        ("region", pa.int64()),
        ("name", pa.string()),
        ("wkb", pa.binary()),
        ("parent", pa.int64()),
        ("area_km2", pa.float64()),
        ("lat", pa.float64()),
        ("lon", pa.float64()),
        ("n_images", pa.int64()),
    ]
)


def region_table(
    names: Sequence[str] | NDArray[np.str_], index: I8 | None = None, **known: Sequence[Any] | NDArray[Any] | pa.Array
) -> pa.Table:
    """Regions as columns region (index, from 0 on if not given) and name, and what else is `known` of each.

    That may be wkb (outline, lon-lat), parent, area_km2, lat and lon, n_images, as in table `regions_of_partition`.
    """
    columns = {"region": np.arange(len(names)) if index is None else index, "name": pa.array(names), **known}
    empty = pa.nulls(len(names))
    return pa.table([columns.pop(field.name, empty) for field in _REGIONS], schema=_REGIONS)


class Assigner(Protocol):
    """What a worker needs of a partition: it is broadcast, so that it is picklable and holds nothing else."""

    def assign(self, lat: F8, lon: F8, candidates: Candidates) -> I8:
        """Region index of each point (WGS-84 degrees, shape (n,)), or OUTSIDE, NODATA, UNMAPPED."""
        ...


class Partition(Protocol):
    """What the driver knows of a partition."""

    @property
    def name(self) -> str:
        """Name, and the name of its column in `labels`."""
        ...

    @property
    def digest(self) -> str:
        """Content hash, hex: SHA-256 of what decides the region of a point, and of nothing else."""
        ...

    @property
    def n_regions(self) -> int:
        """How many regions it can tell apart."""
        ...

    def regions(self, observed: I8) -> pa.Table:
        """Its regions, a `region_table`: all where they can be listed, else those whose indices were `observed`."""
        ...

    def areas_km2(self) -> F8 | None:
        """Exact areas of all regions on the sphere of mean radius, (n_regions,); None where pixels of a map decide."""
        ...

    def pieces(self, width_km: float) -> Pieces:
        """Pieces of its regions, and holes between them, of a mean width below `width_km`; none of a map's."""
        ...

    def outlines(self) -> dict[int, bytes]:
        """Numbers and outlines (WKB, lon-lat) of the files or polygons that matter only to points near them."""
        ...

    def assigner(self) -> Assigner:
        """The function that a partition is, for workers."""
        ...


@runtime_checkable
class Doubtful(Protocol):
    """A partition that can say what seems wrong with it."""

    def doubts(self) -> list[str]:
        """Warnings for a job's report, such as a class that can never occur."""
        ...


def doubts(partitions: Sequence[Partition]) -> list[str]:
    """What seems wrong with any of the partitions."""
    return [doubt for partition in partitions if isinstance(partition, Doubtful) for doubt in partition.doubts()]


@dataclass(frozen=True)
class Published:
    """A partition as a committed run of `build_partitions` left it: kind, hash, definition, and its `region_table`."""

    kind: str
    digest: str
    definition: dict[str, Any]
    regions: pa.Table


class Tables(Protocol):
    """The committed tables and the files that a definition may need to be built, read on the driver."""

    def catalog(self, collection: str) -> pa.Table:
        """The files of a raster collection, CATALOGED_COLUMNS. InputError names the collections that there are."""
        ...

    def published(self, root: str, partition: str, run: str) -> Published:
        """A partition that was built: `run` is a run id or `latest`. InputError names those that there are."""
        ...

    def local_copy(self, uri: str) -> AbstractContextManager[str]:
        """A file or folder of any store as a path on the driver's disk. InputError if there is none."""
        ...


class PartitionDefinition(Config):
    """Base of the configuration of every kind of partition."""

    identity_version: ClassVar[int] = 1
    """Version of the facts that a kind's hash covers; it changes when they do."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$", description="lower case, as a column name in SQL")
    kind: str
    title: str = Field("", description="one line for people")

    def build(self, tables: Tables) -> Partition:
        """The partition; `tables` gives what it needs from other jobs. ConfigError if it cannot be built."""
        raise NotImplementedError

    def restored(self, published: Published, tables: Tables) -> Partition:
        """The partition that was published with this definition: built anew, unless a kind keeps all in its regions."""
        return self.build(tables)

    def fitted(self, tables: Tables) -> PartitionDefinition:
        """This definition with what it would take from the data (the edges of buckets) written out."""
        return self

    def content_digest(self, facts: Mapping[str, Any]) -> str:
        """Hash of a partition of this kind: of the `facts` that decide the region of a point, and of nothing else.

        A kind names its facts one by one. Names, titles, paths and options that have no effect are not among them, so
        that a rename or a new option leaves the hash as it is.
        """
        return content_digest(self.kind, self.identity_version, facts)


def kinds() -> list[str]:
    """Names of the kinds of partition that there are."""
    from geosieve.partitions import kinds as package

    return sorted(module.name for module in pkgutil.iter_modules(package.__path__))


def parse_definition(content: Mapping[str, Any], where: str) -> PartitionDefinition:
    """The definition in a mapping, as its `kind` says. ConfigError names the nearest kind or key."""
    kind = content.get("kind")
    if kind not in kinds():
        hint = advice(str(kind), kinds(), "kinds")
        raise ConfigError(f"kind: there is no kind of partition {kind!r}; {hint}", where=where)
    definition: type[PartitionDefinition] = importlib.import_module(f"geosieve.partitions.kinds.{kind}").Definition
    return validate(definition, content, where)
