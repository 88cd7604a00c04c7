"""Reads a given list of Parquet files, and no others in their folders."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import StructType

from geosieve.runtime.files import Files, literal

_FEW = 32
"""The largest number of paths that Spark gets one by one. For each path it sends two requests to the store."""
_WRITTEN = re.compile(r"part-\d+-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\b.*")


def read_files(
    spark: SparkSession, schema: StructType, files: Mapping[str, Sequence[str]], base: str | None = None
) -> DataFrame:
    """The rows of the Parquet files in `files`, which maps each folder to names of files in it.

    `base` is Spark's basePath: folders below it (`column=value`) are partition columns, which `schema` must contain.
    Without files the frame is empty. Many files are read by folder and a glob if that gives the same files.
    """
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
    """The ids of the Spark writes that produced `files`, if these are all files of those writes; otherwise empty.

    Spark puts the id of a write into the names of all its files. So a glob on the ids selects the files of a run, even
    if another attempt adds files to the same folder at any time. Spark then lists each folder once instead of asking
    the store for each file.
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
