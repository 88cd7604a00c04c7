"""Tables for definitions in tests without Spark."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import pyarrow as pa

from geosieve.partitions.base import Published
from geosieve.rasters.files import CatalogedFile, file_table


@dataclass
class GivenTables:
    """Gives the same raster files for every collection, and published partitions by name."""

    files: list[CatalogedFile] = field(default_factory=list)
    built: dict[str, Published] = field(default_factory=dict)

    def catalog(self, collection: str) -> pa.Table:
        return file_table(self.files)

    def published(self, root: str, partition: str, run: str) -> Published:
        return self.built[partition]

    def local_copy(self, uri: str) -> AbstractContextManager[str]:
        return nullcontext(uri)
