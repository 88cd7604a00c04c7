"""Interfaces of a partition: a finite set of disjoint regions, used as a function from (lat, lon) to a region index.

Each kind of partition is a module in `geosieve.partitions.kinds`. Its class `Definition` is the configuration, and
`Definition.build` returns the `Partition`. To add a kind, add such a module; nothing else has to change.
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
    """Return a table with one row per region and the columns of the table `regions_of_partition`.

    names: names of the regions.
    index: region indices; 0, 1, … if not given.
    known: other columns: wkb (outline, lon-lat), parent (region index in the coarser partition), area_km2 (km²), lat
        and lon (degrees), n_images. Columns that are not given are null.
    """
    columns = {"region": np.arange(len(names)) if index is None else index, "name": pa.array(names), **known}
    empty = pa.nulls(len(names))
    return pa.table([columns.pop(field.name, empty) for field in _REGIONS], schema=_REGIONS)


class Assigner(Protocol):
    """Function from points to regions. It is broadcast to the workers, so it must be picklable and small."""

    def assign(self, lat: F8, lon: F8, candidates: Candidates) -> I8:
        """Return the region index of each point, shape (n,), or OUTSIDE, NODATA or UNMAPPED.

        lat, lon: WGS-84 degrees, shape (n,).
        candidates: for each item of `Partition.outlines`, the points near it.
        """
        ...


class Partition(Protocol):
    """A partition on the driver."""

    @property
    def name(self) -> str:
        """Name of the partition and of its column in the table `labels`."""
        ...

    @property
    def digest(self) -> str:
        """SHA-256, hex, of exactly the facts that decide which region a point belongs to."""
        ...

    @property
    def n_regions(self) -> int:
        """Number of regions. Region indices are 0 to n_regions - 1."""
        ...

    def regions(self, observed: I8) -> pa.Table:
        """Return a `region_table` of all regions; of a whole S2 level only those with an index in `observed`."""
        ...

    def areas_km2(self) -> F8 | None:
        """Return the exact areas, km², shape (n_regions,), on the sphere of mean radius.

        None if the partition is defined by the pixels of a map.
        """
        ...

    def pieces(self, width_km: float) -> Pieces:
        """Return the parts of regions, and the holes between regions, whose mean width is below `width_km`.

        There are none if the partition is defined by the pixels of a map.
        """
        ...

    def outlines(self) -> dict[int, bytes]:
        """Return the outlines (WKB, lon-lat degrees) of raster files or polygons by number.

        Only a point near the outline of a file or polygon needs to be compared with it. Empty if the partition needs no
        such selection.
        """
        ...

    def assigner(self) -> Assigner:
        """Return the function from points to regions, for the workers."""
        ...


@runtime_checkable
class Doubtful(Protocol):
    """A partition that can report what seems wrong with its definition or data."""

    def doubts(self) -> list[str]:
        """Return warnings for the job's report, for example about a class that can never occur."""
        ...


def doubts(partitions: Sequence[Partition]) -> list[str]:
    """Return the warnings of all partitions that are `Doubtful`."""
    return [doubt for partition in partitions if isinstance(partition, Doubtful) for doubt in partition.doubts()]


@dataclass(frozen=True)
class Published:
    """A partition as a committed run of `build_partitions` wrote it: kind, hash, definition and `region_table`."""

    kind: str
    digest: str
    definition: dict[str, Any]
    regions: pa.Table


class Tables(Protocol):
    """Access, on the driver, to the committed tables and the files from which definitions are built."""

    def catalog(self, collection: str) -> pa.Table:
        """Return the catalogue of a raster collection: one row per file, with CATALOGED_COLUMNS.

        InputError, with the existing collections, if there is no such collection.
        """
        ...

    def published(self, root: str, partition: str, run: str) -> Published:
        """Return a partition that `build_partitions` wrote below `root`. `run` is a run id or `latest`.

        InputError, with the existing partitions, if there is no such partition or run.
        """
        ...

    def local_copy(self, uri: str) -> AbstractContextManager[str]:
        """Make a file or folder of any store available as a path on the driver's disk, as a context manager.

        InputError if it does not exist.
        """
        ...


class PartitionDefinition(Config):
    """Base class of the configuration of every kind of partition."""

    identity_version: ClassVar[int] = 1
    """Version of the list of facts that the kind's hash covers. Increase it when that list changes."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$", description="lower case, as a column name in SQL")
    kind: str
    title: str = Field("", description="one line that describes the partition to readers")

    def build(self, tables: Tables) -> Partition:
        """Build the partition. `tables` gives access to the results of other jobs.

        ConfigError if the definition does not fit the data; InputError if tables or files are missing or wrong.
        """
        raise NotImplementedError

    def restored(self, published: Published, tables: Tables) -> Partition:
        """Return the partition that was published with this definition.

        It is built again, unless the published regions of the kind contain everything that defines it.
        """
        return self.build(tables)

    def fitted(self, tables: Tables) -> PartitionDefinition:
        """Return this definition with the values that `build` would derive from the data, such as bucket edges."""
        return self

    def content_digest(self, facts: Mapping[str, Any]) -> str:
        """Return the hash of a partition of this kind, computed from the `facts` that decide a point's region.

        Each kind lists its facts explicitly. Names, titles, paths and options without effect are not among them, so
        that a new name or a new option does not change the hash.
        """
        return content_digest(self.kind, self.identity_version, facts)


def kinds() -> list[str]:
    """Return the names of all kinds of partitions, sorted."""
    from geosieve.partitions import kinds as package

    return sorted(module.name for module in pkgutil.iter_modules(package.__path__))


def parse_definition(content: Mapping[str, Any], where: str) -> PartitionDefinition:
    """Return the definition in a mapping, as the class for its `kind`. `where` is its source, for error messages.

    ConfigError, with the most similar name, if the kind or a key does not exist.
    """
    kind = content.get("kind")
    if kind not in kinds():
        hint = advice(str(kind), kinds(), "kinds")
        raise ConfigError(f"kind: there is no kind of partition {kind!r}; {hint}", where=where)
    definition: type[PartitionDefinition] = importlib.import_module(f"geosieve.partitions.kinds.{kind}").Definition
    return validate(definition, content, where)
