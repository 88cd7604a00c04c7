"""Reading tables: committed runs only, and exactly the files that their manifests list."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import StringType, StructField, StructType

from geosieve.runtime.errors import InputError, RetryableError
from geosieve.runtime.files import Files, literal
from geosieve.runtime.names import did_you_mean
from geosieve.tables.publish import read_manifest
from geosieve.tables.schema import Table


@dataclass(frozen=True)
class Run:
    """A committed run of a table: its leaf, partition values, rows and time."""

    uri: str
    values: dict[str, str]
    rows: int
    committed_at: str
    files: tuple[str, ...]

    @property
    def run_id(self) -> str:
        return self.values["run_id"]


def committed_runs(spark: SparkSession, root: str, table: Table, **values: str) -> list[Run]:
    """Committed runs of `table` below `root` in the order of their commits, restricted to partition values."""
    files = Files(spark)
    leaves = [(f"{root.rstrip('/')}/{table.name}", dict[str, str]())]
    for column in table.partition_columns:
        leaves = [
            (entry.uri, {**known, column.name: entry.name.partition("=")[2]})
            for folder, known in leaves
            for entry in files.list(folder)
            if entry.is_folder and entry.name.startswith(f"{column.name}=")
        ]
        if column.name in values:
            leaves = [leaf for leaf in leaves if leaf[1][column.name] == values[column.name]]
    runs = []
    for uri, known in leaves:
        manifest = read_manifest(files, uri)
        if manifest is not None:
            names = tuple(entry["name"] for entry in manifest["files"])
            runs.append(Run(uri, known, int(manifest["rows"]), str(manifest["committed_at"]), names))
    return sorted(runs, key=lambda run: (run.committed_at, run.run_id))


def select_runs(runs: list[Run], which: str | Literal["latest", "all"], where: str) -> list[Run]:
    """The `latest` run a partition, `all` runs, or the runs of one id. InputError if that is none."""
    if which == "latest":
        # A later run of the same source replaces the earlier one; other sources stand beside it.
        chosen = list({tuple(v for k, v in run.values.items() if k != "run_id"): run for run in runs}.values())
    else:
        chosen = [run for run in runs if which in ("all", run.run_id)]
    if not chosen:
        known = ", ".join(run.run_id for run in runs) or "none"
        near = did_you_mean(which, (run.run_id for run in runs))
        raise InputError(f"no committed run {which!r}; committed runs: {known}", where=where, hint=near)
    return chosen


def read_runs(spark: SparkSession, root: str, table: Table, runs: list[Run]) -> DataFrame:
    """The rows of committed runs, with the partition columns as strings. A geometry is WKB.

    RetryableError if a file that a manifest lists is gone: the run is being replaced.
    """
    if not runs:
        raise InputError("no committed run to read", where=f"{root}/{table.name}")
    files = Files(spark)
    for run in runs:
        missing = set(run.files) - {entry.name for entry in files.list(run.uri)}
        if missing:
            raise RetryableError(f"{len(missing)} files of a committed run are missing", where=run.uri)
    partitions = [StructField(column.name, StringType()) for column in table.partition_columns]
    schema = StructType([*table.spark_schema().fields, *partitions])
    paths = [literal(f"{run.uri}/{name}") for run in runs for name in run.files]
    base = f"{root.rstrip('/')}/{table.name}"
    return spark.read.schema(schema).option("basePath", base).parquet(*paths)


def read_committed(spark: SparkSession, root: str, table: Table, **values: str) -> DataFrame:
    """The rows of all committed runs of these partition values, as `read_runs` gives them. InputError if none is."""
    return read_runs(spark, root, table, committed_runs(spark, root, table, **values))
