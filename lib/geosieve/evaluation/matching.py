"""Open and check the lists of an evaluation, and find the predictions that have no usable truth.

A list is the truth or the predictions of one system. Predictions and truth belong together by image id.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from geosieve.evaluation import inputs, truth
from geosieve.evaluation.config import EvaluateConfig
from geosieve.evaluation.inputs import ListTruth, System
from geosieve.evaluation.scoring import MAX_IMAGES
from geosieve.evaluation.truth import TableTruth
from geosieve.images import row_checks
from geosieve.images.row_checks import COORDINATE_COUNTS
from geosieve.labels.read import CommittedLabels
from geosieve.runtime.errors import InputError
from geosieve.runtime.frames import on_disk

TRUTH = "truth"


@dataclass(frozen=True)
class GivenList:
    """The truth, or the predictions of one system.

    `key`: its place in the configuration, e.g. `systems.0`. `source`: its part of the configuration. `rows`: all rows,
    good and refused, with the columns that `inputs.read_list` describes. `labels`: the run of `labels` that the truth
    comes from, if its strata are partitions.
    """

    key: str
    source: ListTruth | TableTruth | System
    rows: DataFrame
    labels: CommittedLabels | None = None

    @property
    def name(self) -> str:
        """The name of the system, or `truth`."""
        return self.source.name if isinstance(self.source, System) else self.key

    @property
    def good(self) -> DataFrame:
        """The rows that were not refused."""
        return self.rows.where("error_class IS NULL")


def open_lists(spark: SparkSession, config: EvaluateConfig) -> tuple[GivenList, list[GivenList]]:
    """Open the truth and the predictions of each system, lazily. InputError if one of them cannot be opened."""
    if isinstance(config.truth, TableTruth):
        images = GivenList(TRUTH, config.truth, *truth.read_tables(spark, config.truth))
    else:
        images = GivenList(TRUTH, config.truth, inputs.read_list(spark, config.truth, TRUTH))
    predictions = []
    for number, system in enumerate(config.systems):
        key = f"systems.{number}"
        rows = inputs.read_list(spark, system, key)
        predictions.append(GivenList(key, system, _with_area(rows, system.columns.area_km2 is not None)))
    return images, predictions


def _with_area(rows: DataFrame, has_area: bool) -> DataFrame:
    """Parse `area_km2` of predictions as a number, and accept the position (0, 0).

    A row whose area is negative or not a number is refused (`bad_area`). An empty area becomes null.
    """
    text = F.col("area_km2") if has_area else F.lit(None).cast("string")
    area = F.expr("try_cast(area_km2 AS double)")
    said = F.col("area_km2").isNotNull() & ~F.expr(row_checks.is_word_for_nothing("area_km2"))
    bad = (area < 0) | (area.isNull() & said)
    # In the truth, (0, 0) stands for an unknown position. As a prediction it is a valid answer.
    error = F.when(F.col("error_class") != "null_island", F.col("error_class"))
    good = error.isNull()
    return (
        rows.withColumn("area_km2", text)
        .withColumn("bad", F.coalesce(good & bad, F.lit(False)))
        .withColumns(
            {
                "message": F.when(F.col("bad"), F.lit("area_km2 is no area: negative, or no number")).when(
                    ~good, F.col("message")
                ),
                "error_class": F.when(F.col("bad"), F.lit("bad_area")).otherwise(error),
                "area_km2": F.nanvl(area, F.lit(None)),
            }
        )
        .drop("bad")
    )


@contextmanager
def kept(given: GivenList) -> Iterator[GivenList]:
    """Keep the rows on disk, so that they are computed only once, and release them at the end of the `with` block.

    Rows with the same id are in the same Spark partition, so that later joins and groupings by id need no shuffle.
    """
    frame = given.rows
    tasks = max(4, 2 * frame.sparkSession.sparkContext.defaultParallelism)
    with on_disk(frame.repartition(tasks, "image_id")) as rows:
        yield replace(given, rows=rows)


def check(given: GivenList, most_refused: float) -> int:
    """Check a list as a whole, and return its number of rows, including the refused ones.

    most_refused: the largest share of rows that may be refused; rows that `exclude_ids` leaves out are not counted.

    InputError if latitude and longitude are swapped or not in degrees, if longitudes run from 0 to 360, if a file
    contains rows of aggregates, if no row is usable, if too many rows are refused, if the truth has more than
    MAX_IMAGES images, or if an id occurs twice. Only the last four are checked for our own tables.
    """
    source, name, frame = given.source, given.key, given.rows
    found = (
        frame.groupBy("input_uri", "error_class", "suspect")
        .agg(F.count("*").alias("count"), *map(F.expr, COORDINATE_COUNTS))
        .collect()
    )
    if not isinstance(source, TableTruth):
        names = source.columns
        swap_hint = f"swap {name}.columns.lat and .lon, now {names.lat!r} and {names.lon!r}"
        row_checks.refuse_other_coordinates(found, swap_hint, "subtract 360 from longitudes above 180")
        for uri in sorted({row["input_uri"] for row in found if row["suspect"]}):
            inputs.refuse_aggregates(frame, source, uri)
    counts: dict[str | None, int] = {}
    for row in found:
        counts[row["error_class"]] = counts.get(row["error_class"], 0) + row["count"]
    if not counts.get(None):
        classes = ", ".join(f"{error} {rows}" for error, rows in sorted(counts.items(), key=str)) or "it holds no rows"
        example = frame.where("message IS NOT NULL").select("message").first()
        raise InputError(
            f"no usable row ({classes})", where=name, hint=example["message"] if example is not None else ""
        )
    refused = sum(rows for error, rows in counts.items() if error not in (None, inputs.EXCLUDED))
    if refused > most_refused * (refused + counts[None]):
        classes = ", ".join(f"{error} {rows}" for error, rows in sorted(counts.items(), key=str) if error is not None)
        example = frame.where("error_class IS NOT NULL AND message IS NOT NULL").select("message").first()
        raise InputError(
            f"{refused} of {refused + counts[None]} rows are refused ({classes}), more than a share of "
            f"{most_refused:g}",
            where=name,
            hint="mend the list, or allow more by most_refused" + (f"; {example['message']}" if example else ""),
        )
    if not isinstance(source, TableTruth):
        inputs.refuse_means(frame, name)
    if name == TRUTH and counts[None] > MAX_IMAGES:
        raise InputError(
            f"{counts[None]} images; one run evaluates at most {MAX_IMAGES}", where=name, hint="sample them"
        )
    inputs.refuse_repeats(frame, None if isinstance(source, TableTruth) else source, name)
    return sum(counts.values())


def settle(given: GivenList, images: DataFrame, used: int, unmatched: Literal["error", "reject"]) -> DataFrame:
    """Mark the predictions that have no usable truth as refused, and return all rows.

    The error class is `no_truth` if the truth does not contain the image, `truth_rejected` if its row of the truth was
    refused. images: rows of the truth; used: number of predictions that were joined with an image.

    InputError if the truth lacks the image of any prediction and `unmatched` is "error", or if it lacks the images of
    all of them.
    """
    name, frame, good = given.key, given.rows, F.col("error_class").isNull()
    n = frame.where(good).count()
    if n == used:
        return frame  # every good prediction was joined with an image
    flags = images.where("image_id IS NOT NULL").select("image_id", F.col("error_class").isNull().alias("usable"))
    joined = frame.join(flags, "image_id", "left")
    lost, barred = good & F.col("usable").isNull(), good & ~F.col("usable")
    alone = joined.where(lost).count()
    if alone and (unmatched == "error" or alone == n):
        raise InputError(
            f"{alone} of {n} predictions are for images that the truth does not have, e.g. "
            + ", ".join(repr(row["image_id"]) for row in joined.where(lost).orderBy("image_id").take(3)),
            where=name,
            hint=f"truth has ids like {_example(flags)!r}; see strip_extension, exclude_ids, and unmatched: reject",
        )
    return joined.withColumns(
        {
            "error_class": F.when(lost, "no_truth").when(barred, "truth_rejected").otherwise(F.col("error_class")),
            "message": F.when(lost, "no image of this id in the truth")
            .when(barred, "the truth of this image was rejected")
            .otherwise(F.col("message")),
        }
    )


def _example(images: DataFrame) -> str:
    row = images.orderBy("image_id").first()
    return str(row["image_id"]) if row is not None else ""
