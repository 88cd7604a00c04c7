"""The receipt of a set of splits: how many images each split kept and left out, by reason and by class."""

from __future__ import annotations

from typing import Any

import pandas as pd
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from geosieve.splits.classes import Classes, label_column
from geosieve.splits.config import NO_SPLIT
from geosieve.tables.schemas import SPLIT_RECEIPT

KEPT = "kept"


def count_outcomes(rows: DataFrame, partitions: list[str]) -> pd.DataFrame:
    """Count images by drawn, outcome, partition and region, and those of them that have a near duplicate.

    `outcome` is `kept` or the reason. Rows with a null partition count all images; the others count them by the regions
    of one partition. `near_duplicates` is null if `rows` has no column `duplicate_of`.
    """
    near = F.count("duplicate_of") if "duplicate_of" in rows.columns else F.lit(None)
    outcome = F.coalesce("reason", F.lit(KEPT)).alias("outcome")
    counted = [
        rows.groupBy(
            "drawn", outcome, F.lit(name).cast("string").alias("partition"), region.cast("bigint").alias("region")
        ).agg(F.count("*").alias("images"), near.alias("near_duplicates"))
        for name, region in [(None, F.lit(None)), *((name, F.col(label_column(name))) for name in partitions)]
    ]
    columns = ["drawn", "outcome", "partition", "region", "images", "near_duplicates"]
    collected = [row for frame in counted for row in frame.collect()]
    return pd.DataFrame(collected, columns=columns, dtype=object)


def receipt_rows(spark: SparkSession, outcomes: pd.DataFrame, classes: Classes | None) -> DataFrame:
    """The rows of the table `split_receipt`: `outcomes` with the names of the regions."""
    rows = [
        (*row[:4], classes.name(row[2], row[3]) if classes is not None and row[2] is not None else None, *row[4:])
        for row in outcomes.itertuples(index=False, name=None)
    ]
    return spark.createDataFrame(rows, SPLIT_RECEIPT.spark_schema()).coalesce(1)


def summarize(outcomes: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Images by split and outcome. The key `none` counts images that were drawn for no split."""
    totals = outcomes[outcomes["partition"].isna()].sort_values(["drawn", "outcome"])
    found: dict[str, dict[str, Any]] = {}
    for drawn, outcome, images in totals[["drawn", "outcome", "images"]].itertuples(index=False, name=None):
        found.setdefault(drawn or NO_SPLIT, {})[outcome] = int(images)
    return found
