"""Job `rank_regions`: from anybody's probabilities to ranked regions with areas.

The rows of an image come together by one shuffle, unless there is one predictor only. Each task then ranks images as
they come; the driver sees counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from geosieve.inference.given import count, gather, image_numbers, open_predictions
from geosieve.inference.ranker import OUT, read_ranker, regions_of, summaries_of
from geosieve.inference.ranking_config import RankConfig
from geosieve.job.main import Context
from geosieve.job.publishing import publishes
from geosieve.runtime.errors import InputError, IntegrityError
from geosieve.runtime.frames import arrow_batches, on_disk
from geosieve.tables.publish import Leaf, Publication
from geosieve.tables.schemas import IMAGE_KEY, IMAGE_SUMMARY, RANKED_REGIONS, REJECTS

JOB = "rank_regions"
_BATCH_BYTES = 8 << 20
_TASK_BYTES = 256 << 20
"""Of the arrays that a task ranks, and that Spark sorts for it."""


def _leaves(config: RankConfig) -> list[Leaf]:
    values = {"ranking": config.name}
    rejects = Leaf(REJECTS, {"job": JOB, "part": config.name})
    return [rejects, Leaf(RANKED_REGIONS, values), Leaf(IMAGE_SUMMARY, values)]


@publishes(_leaves)
def rank_regions(context: Context[RankConfig], publication: Publication) -> int:
    """Write `ranked_regions`, `image_summary` and `rejects`. Returns the number of images, and of rows without an id.

    The report says how far sums of given log-probabilities were from 1, at most, before they were normalised.

    InputError if predictions are over other partitions than the overlay's, or of predictors that are no members, if
    there are none of a member, or if an artefact was changed; ConfigError if the overlay lacks a partition, or the
    artefact the coverage.
    """
    config, report, spark = context.config, context.report, context.spark
    with report.stage("inputs"):
        ranker, _ = read_ranker(spark, config)
        overlay, members = ranker.answerer.ensemble.overlay, ranker.answerer.partitions
        rows = open_predictions(spark, config.predictions, members, overlay)
    if context.dry_run:
        found = {name: f"over {partition}" for name, partition in members.items()}
        context.show_plan({"overlay": overlay.digest, **found}, {"predictions": rows})
        return 0
    with report.stage("count"):
        counts = count(rows, members)
        report.rows_in = counts.images + counts.without_id
        if not counts.images:
            raise InputError("there are no predictions of any image", where=config.predictions[0].uri)
    widest = max(area.size for area in ranker.sizes.values())
    known = rows.where(F.col("source").isNotNull() & F.col("image_id").isNotNull())
    if len(members) > 1 or counts.repeated:
        known = _together(known, counts.images, 8 * sum(area.size for area in ranker.sizes.values()))
    shared = spark.sparkContext.broadcast(ranker)

    def ranked(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for some in whole_images(batches):
            yield shared.value.rank(gather(some, shared.value.sizes))

    with (
        arrow_batches(spark, max(1, _BATCH_BYTES // (8 * widest))),
        on_disk(known.mapInArrow(ranked, OUT)) as answers,
    ):
        with report.stage("rank"):
            publication.write(RANKED_REGIONS, regions_of(answers, ranker))
        with report.stage("write"):
            report.rows_out = publication.write(IMAGE_SUMMARY, summaries_of(answers, report.run_id))
            rejected = publication.write(REJECTS, _rejects(answers, rows))
            report.rejected = _by_class(publication.written(REJECTS))
            report.details["log_probability_defect"] = answers.agg(F.max("defect")).first()[0]  # type: ignore[index]
    if report.rows_out + rejected != report.rows_in:
        raise IntegrityError(f"{report.rows_in} images came in, {report.rows_out} were ranked, {rejected} rejected")
    report.details |= _details(publication.written(IMAGE_SUMMARY))
    return report.rows_in


def _together(rows: DataFrame, images: int, size: int) -> DataFrame:
    """The rows of an image one after the other."""
    spark = rows.sparkSession
    tasks = max(2 * int(spark.sparkContext.defaultParallelism), -(-images * size // _TASK_BYTES))
    return rows.repartition(tasks, *IMAGE_KEY).sortWithinPartitions(*IMAGE_KEY)


def whole_images(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Tables of whole images, from batches in which the rows of an image stand one after the other."""
    held = None
    for batch in batches:
        rows = pa.Table.from_batches([batch])
        rows = rows if held is None else pa.concat_tables([held, rows])
        if not len(rows):
            continue
        start = int(image_numbers(rows)[1][-1])  # of the last image, which may go on in the next batch
        if start:
            yield rows.slice(0, start)
        held = rows.slice(start)
    if held is not None:
        yield held


def _rejects(answers: DataFrame, rows: DataFrame) -> DataFrame:
    refused = answers.where("error_class IS NOT NULL").select(
        F.concat_ws("/", *IMAGE_KEY).alias("id"), F.lit(None).cast("string").alias("uri"), "error_class", "message"
    )
    without = rows.where(F.col("source").isNull() | F.col("image_id").isNull()).select(
        F.col("image_id").alias("id"),
        F.lit(None).cast("string").alias("uri"),
        F.lit("missing_id").alias("error_class"),
        F.lit("a prediction of no image: its source or id is null").alias("message"),
    )
    return refused.unionByName(without).withColumn("stage", F.lit("predictions"))


def _by_class(rejects: DataFrame) -> dict[str, int]:
    return {row["error_class"]: row["count"] for row in sorted(rejects.groupBy("error_class").count().collect())}


def _details(summaries: DataFrame) -> dict[str, Any]:
    (row,) = summaries.agg(
        F.count_if("no_evidence").alias("no_evidence"),
        F.count_if("contradiction").alias("contradiction"),
        F.count_if("cut_short").alias("cut_short"),
        F.percentile_approx("area_50_km2", 0.5).alias("median_area_50_km2"),
    ).collect()
    return dict(row.asDict())
