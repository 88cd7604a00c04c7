"""Truth from our own tables: `images`, or `labels` where strata are partitions."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from geosieve.evaluation.inputs import stratum_column
from geosieve.geo.codes import NODATA, OUTSIDE, UNMAPPED
from geosieve.images.read import NO_POSITION, NO_POSITION_MESSAGE, NOT_POSITIONED, ImagesInput, read_images
from geosieve.partitions.read import LABEL_JOB
from geosieve.runtime.config import Config, RunId
from geosieve.runtime.errors import InputError
from geosieve.runtime.names import did_you_mean
from geosieve.tables.read import Run, committed_runs, read_committed, read_runs, select_runs
from geosieve.tables.schemas import IMAGES, PARTITIONS, REGIONS, labels_table

SOURCE = "source"
WITHOUT_REGION = {str(OUTSIDE): "outside", str(NODATA): "no data", str(UNMAPPED): "unknown"}
"""Labels of images that lie in no region, as text, and words for them."""


class TableTruth(Config):
    """Committed runs of our tables. `strata` names partitions of `labels`, or `source`; with none, `images` is read."""

    format: Literal["tables"]
    root: str
    run: RunId = Field("latest", description="a run id, `latest`, or for images alone `all`")
    sources: list[str] = Field([], description="only these sources; all if empty")
    strata: list[str] = []


def read_tables(spark: SparkSession, truth: TableTruth) -> DataFrame:
    """Rows as of `inputs.read_list`. InputError if there is no such run, or it has not labelled with a partition."""
    names = [name for name in truth.strata if name != SOURCE]
    table = labels_table(names) if names else IMAGES
    where = f"{truth.root}/{table.name}"
    if names:
        runs = select_runs(_runs(spark, truth, names), truth.run, where)
        _check_labelled(spark, truth, runs, names)
        rows = read_runs(spark, truth.root, table, runs)
        rows = rows.where(F.col(SOURCE).isin(truth.sources)) if truth.sources else rows
    else:
        rows = read_images(spark, ImagesInput(root=truth.root, sources=truth.sources, run=truth.run)).rows
    nowhere = F.expr(NOT_POSITIONED)
    strata = [F.col(name).cast("string").alias(stratum_column(name)) for name in truth.strata]
    return rows.select(
        *("image_id", "lat", "lon"),
        *strata,
        F.when(nowhere, NO_POSITION).alias("error_class"),
        F.when(nowhere, NO_POSITION_MESSAGE).alias("message"),
        F.lit(False).alias("suspect"),
        F.lit(False).alias("named"),
        F.lit(where).alias("input_uri"),
    )


def region_names(
    spark: SparkSession, truth: TableTruth, values: dict[str, tuple[str, ...]]
) -> dict[str, dict[str, str]]:
    """Names of the regions (as text of their indices) that occur as values of strata, by stratum."""
    names = [name for name in values if name != SOURCE]
    if not names:
        return {}
    run = select_runs(_runs(spark, truth, names), truth.run, truth.root)[0].run_id
    regions = read_committed(spark, truth.root, REGIONS, job=LABEL_JOB, run_id=run)
    wanted = [f"{name}/{value}" for name in names for value in values[name]]
    found = regions.where(F.concat_ws("/", "partition", "region").isin(wanted)).select("partition", "region", "name")
    shown: dict[str, dict[str, str]] = {name: {} for name in names}
    for row in found.collect():
        shown[row["partition"]][str(row["region"])] = row["name"]
    return shown


def _runs(spark: SparkSession, truth: TableTruth, names: list[str]) -> list[Run]:
    return committed_runs(spark, truth.root, labels_table(names))


def _check_labelled(spark: SparkSession, truth: TableTruth, runs: list[Run], names: list[str]) -> None:
    if len(runs) > 1:
        raise InputError(
            f"{len(runs)} runs of labels", where=truth.root, hint="an image stands in each: name one, or `latest`"
        )
    run = runs[0].run_id
    used = read_committed(spark, truth.root, PARTITIONS, job=LABEL_JOB, run_id=run)
    have = sorted(row["partition"] for row in used.collect())
    missing = sorted(set(names) - set(have))
    if missing:
        raise InputError(
            f"truth.strata: run {run} has no label of {', '.join(missing)}; it has {', '.join(have)}",
            where=truth.root,
            hint=did_you_mean(missing[0], have),
        )
