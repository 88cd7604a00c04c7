"""Reading exactly the Parquet files that are named."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import StructType

from geosieve.runtime.files import Files, literal

_FEW = 32
"""So many files are named to Spark one by one, which it asks the store for twice each."""
_WRITTEN = re.compile(r"part-\d+-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\b.*")


def read_files(
    spark: SparkSession, schema: StructType, files: Mapping[str, Sequence[str]], base: str | None = None
) -> DataFrame:
    """The rows of these files, names by folder. `base`: the folder below which folders are values of columns."""
    paths = [literal(f"{folder}/{name}") for folder, names in files.items() for name in names]
    if not paths:
        return spark.createDataFrame([], schema)
    reader = spark.read.schema(schema)
    if len(paths) > _FEW:
        writes = _whole_writes(spark, files)
        if writes:
            reader = reader.option("pathGlobFilter", f"part-*-{{{','.join(sorted(writes))}}}*")
            paths = [literal(folder) for folder, names in files.items() if names]
    return (reader if base is None else reader.option("basePath", base)).parquet(*paths)


def _whole_writes(spark: SparkSession, files: Mapping[str, Sequence[str]]) -> set[str]:
    """Ids of Spark's writes that left these files in their folders and no others; empty if there are none such.

    Spark puts an id of its own into the names of all files of a write. So names tell the files of a run from what
    another attempt may put beside them at any time, and each folder is listed instead of each file asked for.
    """
    writes = set()
    for names in files.values():
        found = [_WRITTEN.fullmatch(name) for name in names]
        writes |= {match[1] if match else "" for match in found}
    there = Files(spark)
    for folder, names in files.items():
        matches = ((entry.name, _WRITTEN.fullmatch(entry.name)) for entry in there.list(folder))
        if {name for name, match in matches if match and match[1] in writes} != set(names):
            return set()
    return writes
