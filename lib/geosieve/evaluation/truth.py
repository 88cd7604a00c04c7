"""Read the truth from our own tables: from `images`, or from `labels` if strata are partitions."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from geosieve.evaluation.inputs import stratum_column
from geosieve.images.read import NO_POSITION, NO_POSITION_MESSAGE, NOT_POSITIONED, ImagesInput, read_images
from geosieve.labels.read import CommittedLabels, read_labels
from geosieve.runtime.config import Config, RunId
from geosieve.tables.schemas import IMAGES

SOURCE = "source"


class TableTruth(Config):
    """The truth in committed runs of our tables.

    Each of `strata` is `source` or the name of a partition. The table `labels` is read if there is a partition among
    them, else the table `images`.
    """

    format: Literal["tables"]
    root: str
    run: RunId = Field("latest", description="a run id, `latest`, or for images alone `all`")
    sources: list[str] = Field([], description="names of the sources to read; all if empty")
    strata: list[str] = []


def read_tables(spark: SparkSession, truth: TableTruth) -> tuple[DataFrame, CommittedLabels | None]:
    """Read the truth from our tables: one row per image, and the run of `labels` that the rows come from.

    The rows have the columns that `inputs.read_list` describes, except `row`. Rows without a position are marked as
    refused. The run is None if no stratum is a partition, i.e. if `images` was read.

    InputError if there is no such run, or if the run has no labels for one of the partitions.
    """
    partitions = [name for name in truth.strata if name != SOURCE]
    labels = read_labels(spark, truth.root, truth.run, partitions) if partitions else None
    if labels is not None:
        rows, where = labels.rows(), labels.run.uri
        rows = rows.where(F.col(SOURCE).isin(truth.sources)) if truth.sources else rows
    else:
        where = f"{truth.root}/{IMAGES.name}"
        rows = read_images(spark, ImagesInput(root=truth.root, sources=truth.sources, run=truth.run)).rows
    nowhere = F.expr(NOT_POSITIONED)
    strata = [F.col(name).cast("string").alias(stratum_column(name)) for name in truth.strata]
    checked = rows.select(
        *("image_id", "lat", "lon"),
        *strata,
        F.when(nowhere, NO_POSITION).alias("error_class"),
        F.when(nowhere, NO_POSITION_MESSAGE).alias("message"),
        F.lit(False).alias("suspect"),
        F.lit(False).alias("named"),
        F.lit(where).alias("input_uri"),
    )
    return checked, labels


def region_names(labels: CommittedLabels, values: dict[str, tuple[str, ...]]) -> dict[str, dict[str, str]]:
    """Names of the regions that occur as values of strata: by stratum, then by the region's index as text."""
    # A value of such a stratum is a region index as text, or a word if the image has none.
    occurring = {name: [int(v) for v in values[name] if v.lstrip("-").isdigit()] for name in labels.partitions}
    found = labels.region_names(occurring)
    return {name: {str(index): region for index, region in regions.items()} for name, regions in found.items()}
