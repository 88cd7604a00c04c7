"""The images of a training set: those with a label and a split, and where their bytes are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from geosieve.images.content import REFERENCE, WITHOUT_BYTES
from geosieve.images.read import Images
from geosieve.labels.read import CommittedLabels
from geosieve.runtime.errors import InputError
from geosieve.runtime.report import JobReport
from geosieve.splits.classes import label_column
from geosieve.splits.read import CommittedSplits
from geosieve.tables.schemas import IMAGE_KEY

METADATA = ("captured_at", "author", "sequence", "licence")
LAT, LON = "labelled_lat", "labelled_lon"
SHUFFLE = "shuffle"
"""Column of the random number by which images are ordered: xxhash64 of seed, source and image id."""


def joined(images: Images, labels: CommittedLabels, splits: CommittedSplits, seed: int) -> DataFrame:
    """One row per image, with its split and its labels (`label_column`), which are null where it has none."""
    wanted = images.rows.select(*IMAGE_KEY, "lat", "lon", *REFERENCE, *METADATA)
    columns = [F.col(name).alias(label_column(name)) for name in labels.partitions]
    labelled = labels.rows().select(*IMAGE_KEY, F.col("lat").alias(LAT), F.col("lon").alias(LON), *columns)
    found = wanted.join(splits.rows(), [*IMAGE_KEY], "left").join(labelled, [*IMAGE_KEY], "left")
    return found.withColumn(SHUFFLE, F.xxhash64(F.lit(seed), *IMAGE_KEY))


def in_set(names: Iterable[str]) -> Column:
    """Condition on rows of `joined`: the image has a label and is in one of the splits."""
    return F.col(LAT).isNotNull() & F.col("split").isin([*names])


@dataclass(frozen=True)
class Members:
    """How many images are in the set, how many of them have no bytes, and the bytes of the others."""

    rows: int
    without_bytes: int
    bytes: int


def count_members(found: DataFrame, images: Images, names: dict[str, int], report: JobReport) -> Members:
    """Count the rows of `joined`, and tell in the report which images are not in the set, and why.

    InputError if an id occurs twice in the labels or splits, if no image is in the set, or if none has bytes.
    """
    belongs, without = in_set(names), F.expr(WITHOUT_BYTES)
    moved = F.expr(f"lat IS DISTINCT FROM {LAT} OR lon IS DISTINCT FROM {LON}")
    grouped = found.groupBy("split").agg(
        F.count("*").alias("images"),
        F.count(F.when(F.col(LAT).isNull(), 1)).alias("no_label"),
        F.count(F.when(belongs, 1)).alias("members"),
        F.count(F.when(belongs & without, 1)).alias("without_bytes"),
        F.count(F.when(belongs & moved, 1)).alias("moved"),
        F.sum(F.when(belongs & ~without, F.coalesce("length", F.lit(0)))).alias("bytes"),
    )
    by_split = {row["split"]: row for row in grouped.collect()}
    if sum(row["images"] for row in by_split.values()) != images.count:
        raise InputError("ids occur more than once in the run of labels or splits", hint="make them again")
    _tell(by_split, names, report)
    chosen = [by_split[name] for name in names if name in by_split]
    members, without_bytes, size = (sum(row[k] or 0 for row in chosen) for k in ("members", "without_bytes", "bytes"))
    if members == 0:
        raise InputError(
            f"no image is in the training set: {report.details['not_in_the_set']}",
            hint="images, labels and splits must be of the same sources",
        )
    if members == without_bytes:
        raise InputError(
            f"of none of the {members} images is a file known that holds it",
            hint="lists name positions only; ingest the photographs (source.format: photos)",
        )
    return Members(members, without_bytes, size)


def _tell(by_split: dict[str | None, Any], names: dict[str, int], report: JobReport) -> None:
    chosen = {name: by_split[name] for name in names if name in by_split}
    unlabelled = sum(row["no_label"] for row in chosen.values())
    without_image = {name: n - (chosen[name]["images"] if name in chosen else 0) for name, n in names.items()}
    report.details["not_in_the_set"] = {
        "images_without_split": by_split[None]["images"] if None in by_split else 0,
        "images_of_other_splits": sum(
            row["images"] for name, row in by_split.items() if name is not None and name not in names
        ),
        "images_without_label": unlabelled,
        "splits_without_image": without_image,
    }
    if unlabelled:
        report.warn(f"{unlabelled} images of the splits are left out: the run of labels has none for them")
    if any(without_image.values()):
        told = ", ".join(f"{n} of {name}" for name, n in without_image.items() if n)
        report.warn(f"images of the splits are not among the chosen runs of images: {told}")
    moved = sum(row["moved"] for row in chosen.values())
    if moved:
        report.warn(
            f"{moved} images have another position now than when they were labelled; the training set has the labelled "
            "one. Label them again"
        )
