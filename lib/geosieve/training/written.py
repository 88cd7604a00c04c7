"""The files of a training set as they were written, from their footers."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow.parquet as pq

from geosieve.runtime.errors import ConfigError, IntegrityError
from geosieve.runtime.store import open_input
from geosieve.tables.publish import Publication
from geosieve.tables.schema import Table
from geosieve.training.files import SplitPlan

_AT_ONCE = 16  # requests to the store in flight


def written_files(publication: Publication, table: Table, plans: Mapping[str, SplitPlan]) -> list[dict[str, Any]]:
    """Name, split, shard, rows and bytes of each file that was written, in order.

    ConfigError if a file has several row groups, IntegrityError if one has other rows than it should have.
    """
    leaf = publication.uris[-1]
    found = (uri.rpartition("/")[2] for uri in publication.written(table).inputFiles())
    names = sorted(found, key=lambda name: int(name.split("-")[1]))  # part-00000-…: the number of Spark's partition
    uris = [f"{leaf}/{name}" for name in names]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        facts = list(pool.map(_footer, uris))
    planned = [(split, shard, rows) for split, plan in plans.items() for shard, rows in enumerate(plan.rows_of_files)]
    files = []
    for name, (groups, split, shard, rows, size) in zip(names, facts, strict=True):
        if groups != 1:
            raise ConfigError(
                f"a file has {groups} row groups, not one: tasks had too little memory",
                where=f"{leaf}/{name}",
                hint="raise spark.executor.memory, or lower rows_per_file",
            )
        files.append({"name": name, "split": split, "shard": shard, "rows": rows, "bytes": size})
    if [(file["split"], file["shard"], file["rows"]) for file in files] != planned:
        raise IntegrityError(
            "the files that were written are not those that were planned", where=leaf, hint="run again"
        )
    return files


def _footer(uri: str) -> tuple[int, str | None, int | None, int, int]:
    """Number of row groups, split, shard, rows and bytes of a file; split and shard None if they are not the same."""
    with open_input(uri) as file:
        metadata = pq.ParquetFile(file).metadata
        group = metadata.row_group(0)
        columns = {group.column(i).path_in_schema: group.column(i).statistics for i in range(group.num_columns)}
        split, shard = (found.min if found.min == found.max else None for found in (columns["split"], columns["shard"]))
        return metadata.num_row_groups, split, shard, metadata.num_rows, file.size()
