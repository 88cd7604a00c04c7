"""Reading exactly the Parquet files that are named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import StructType

from geosieve.runtime.files import literal


def read_files(
    spark: SparkSession, schema: StructType, files: Mapping[str, Sequence[str]], base: str | None = None
) -> DataFrame:
    """The rows of these files, names by folder. `base`: the folder below which folders are values of columns."""
    paths = [literal(f"{folder}/{name}") for folder, names in files.items() for name in names]
    if not paths:
        return spark.createDataFrame([], schema)
    reader = spark.read.schema(schema)
    return (reader if base is None else reader.option("basePath", base)).parquet(*paths)
