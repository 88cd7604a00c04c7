"""Tables `partitions` and `regions_of_partition`: Spark frames to write, and reading of what was published."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from geosieve.partitions.base import Partition, PartitionDefinition, Published, region_table
from geosieve.rasters.read import read_catalog
from geosieve.runtime.errors import InputError, redact
from geosieve.runtime.files import Files
from geosieve.runtime.names import did_you_mean
from geosieve.tables.read import committed_runs, read_runs
from geosieve.tables.schemas import PARTITIONS, REGIONS

BUILD_JOB, LABEL_JOB = "build_partitions", "label_attributes"
"""Values of the partition column `job` of both tables. Runs of different jobs may have the same run id."""

_REGIONS_PER_FILE = 100_000
_COLUMNS = (
    "region bigint, name string, wkb binary, parent bigint, area_km2 double, lat double, lon double, n_images bigint"
)


def used_partitions(
    definitions: list[PartitionDefinition], partitions: list[Partition]
) -> list[tuple[str, str, str, int, str]]:
    """Return the rows of `partitions_frame` for partitions and their definitions, in the same order."""
    return [
        (p.name, p.digest, d.kind, p.n_regions, d.model_dump_json())
        for p, d in zip(partitions, definitions, strict=True)
    ]


def partitions_frame(spark: SparkSession, rows: list[tuple[str, str, str, int, str]]) -> DataFrame:
    """Return the table `partitions` from rows (name, hash, kind, number of regions, definition as JSON).

    Credentials are removed from the definitions.
    """
    frame = pd.DataFrame(rows, columns=[column.name for column in PARTITIONS.columns])
    frame["definition"] = frame["definition"].map(redact)
    # From pandas, by Arrow, like the regions: a second way of conversion would have to start up as well.
    return spark.createDataFrame(frame, PARTITIONS.spark_schema()).coalesce(1)


def regions_frame(spark: SparkSession, partitions: list[tuple[str, str, pa.Table]]) -> DataFrame:
    """Return the table `regions_of_partition` from partitions given as (name, hash, `region_table`)."""
    numbers = [pa.array(np.full(len(table), number, np.int32)) for number, (_, _, table) in enumerate(partitions)]
    tables = [table.append_column("number", n) for (_, _, table), n in zip(partitions, numbers, strict=True)]
    # An S2 level may have a million cells with images. They go to Spark by Arrow, in Arrow-backed columns: nothing is
    # converted to Python objects, and a column of integers with nulls does not become floats. Name and hash of the
    # partition are added in Spark by its number, so that they are not sent once per region.
    listed = pa.concat_tables(tables).combine_chunks().to_pandas(types_mapper=pd.ArrowDtype)
    frame = spark.createDataFrame(listed, f"{_COLUMNS}, number int")
    names, digests = [name for name, _, _ in partitions], [digest for _, digest, _ in partitions]
    for column, values in (("partition", names), ("partition_hash", digests)):
        frame = frame.withColumn(column, F.array(*map(F.lit, values))[F.col("number")])
    frame = frame.withColumn("geometry", F.expr("ST_GeomFromWKB(wkb)")).drop("wkb", "number")
    return frame.coalesce(1 + len(listed) // _REGIONS_PER_FILE)


@dataclass(frozen=True)
class CommittedTables:
    """`Tables` that Spark reads from committed runs. The raster catalogues are below `rasters_root`."""

    spark: SparkSession
    rasters_root: str
    rasters_run: str = "latest"

    def catalog(self, collection: str) -> pa.Table:
        return read_catalog(self.spark, self.rasters_root, collection, self.rasters_run)

    def published(self, root: str, partition: str, run: str) -> Published:
        listed = {r.run_id: r for r in committed_runs(self.spark, root, REGIONS, job=BUILD_JOB)}
        runs = [r for r in committed_runs(self.spark, root, PARTITIONS, job=BUILD_JOB) if r.run_id in listed]
        found = read_runs(self.spark, root, PARTITIONS, runs).collect() if runs else []
        built = {(row["run_id"], row["partition"]): row for row in found}
        # By run id, in the order of the commits.
        rows = {r.run_id: built[r.run_id, partition] for r in runs if (r.run_id, partition) in built}
        if not rows or (run != "latest" and run not in rows):
            known = ", ".join(sorted(f"{name} (run {run_id})" for run_id, name in built)) or "none"
            other = did_you_mean(partition, {name for _, name in built}) or f"run {BUILD_JOB} first"
            raise InputError(
                f"no partition {partition!r} was built in run {run!r}; built: {known}",
                where=f"{root}/{PARTITIONS.name}",
                hint=did_you_mean(run, rows) if rows else other,
            )
        row = rows[run] if run in rows else list(rows.values())[-1]
        frame = read_runs(self.spark, root, REGIONS, [listed[row["run_id"]]]).where(F.col("partition") == partition)
        columns = ["name", "parent", "area_km2", "lat", "lon", "n_images"]
        regions = frame.select("region", F.col("geometry").alias("wkb"), *columns).orderBy("region").collect()
        known_columns = {name: pa.array([r[name] for r in regions]) for name in ("wkb", *columns[1:])}
        table = region_table([r["name"] for r in regions], **_typed(known_columns))
        return Published(row["kind"], row["partition_hash"], json.loads(row["definition"]), table)

    def local_copy(self, uri: str) -> AbstractContextManager[str]:
        return Files(self.spark).local_copy(uri)


def _typed(columns: dict[str, pa.Array]) -> dict[str, pa.Array]:
    """Drop columns that are entirely null: Arrow does not know their type, and `region_table` adds them again."""
    return {name: column for name, column in columns.items() if column.null_count < len(column)}
