"""Job `register_tables`: committed runs become visible to SQL engines, by Apache Iceberg."""

from __future__ import annotations

from pyspark.sql import SparkSession
from pyspark.sql.types import StructType

from geosieve.job.main import Context
from geosieve.runtime.errors import InputError
from geosieve.sql.config import RegisterConfig
from geosieve.sql.iceberg import IcebergTable, connect, explained
from geosieve.tables.read import Run, committed_runs
from geosieve.tables.schema import Table
from geosieve.tables.schemas import ALL

JOB = "register_tables"
_LAST = ("ranked_regions", "image_summary")
"""Registered after all others: what answers refer to is there before them. Iceberg is atomic by table, not across."""


def register_tables(context: Context[RegisterConfig]) -> None:
    """Register every committed run of the chosen tables that the catalogue does not have yet.

    InputError if there is no committed run, or if a column has changed its type; ConfigError and RetryableError as in
    `connect`.
    """
    config, report, spark = context.config, context.report, context.spark
    chosen = [table for table in ALL if config.tables is None or table.name in config.tables]
    chosen.sort(key=lambda table: table.name in _LAST)
    with report.stage("look"):
        runs = {table.name: committed_runs(spark, config.root, table) for table in chosen}
        report.rows_in = sum(len(of) for of in runs.values())
        if not report.rows_in:
            raise InputError("there is no committed run of these tables", where=config.root)
    if context.dry_run:
        context.show_plan({name: f"{len(of)} committed runs" for name, of in runs.items() if of}, {})
        return
    connect(spark, config.catalog)
    new: dict[str, int] = {}
    with report.stage("register"), explained(spark, config.catalog):
        for table in chosen:
            if runs[table.name]:
                new[table.name] = _register(spark, config.namespace, table, runs[table.name])
    report.rows_out = sum(new.values())
    report.details["runs"] = {name: {"committed": len(runs[name]), "registered": n} for name, n in new.items()}
    if not report.rows_out:
        report.status = "nothing_to_do"


def _register(spark: SparkSession, namespace: str, table: Table, runs: list[Run]) -> int:
    """Register runs in the order of their commits. Returns how many were not there yet."""
    folders = tuple(column.name for column in table.partition_columns)
    done, prepared, known = 0, None, None
    for run in runs:
        schema = _schema(spark, table, run)
        if prepared is None or schema != known:
            prepared, known = IcebergTable.prepared(spark, namespace, table.name, schema, folders), schema
        done += prepared.register(run)
    return done


def _schema(spark: SparkSession, table: Table, run: Run) -> StructType:
    """The schema of a run's files: some tables have further columns, by the names of partitions."""
    if not run.files:
        return table.spark_schema()
    return spark.read.parquet(f"{run.uri}/{run.files[0]}").schema
