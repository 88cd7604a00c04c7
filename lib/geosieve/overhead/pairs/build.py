"""`build_pairs`: photos and the pictures of the ground around them, in one table that can be learned from.

1. Images, chips and splits are joined. Only references to bytes move. Each image is chosen, or has a reason against it.
2. In the order of files and archives, photos are read, decoded, made small and encoded. Spark keeps them on disk.
3. One shuffle brings each photo and its chip together.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from geosieve.images.content import CHANGED_CONTENT, MISSING_FILE
from geosieve.images.read import read_images
from geosieve.job.main import Context
from geosieve.job.publishing import publishes
from geosieve.overhead.pairs.choice import CHIP_RUN, CHOSEN, METADATA, candidates
from geosieve.overhead.pairs.config import PairsConfig
from geosieve.overhead.pairs.photos import photos
from geosieve.overhead.pairs.read import Chips, read_chips
from geosieve.runtime.errors import InputError
from geosieve.runtime.frames import on_disk, rows_with_files
from geosieve.runtime.report import JobReport
from geosieve.splits.read import read_splits, split_names
from geosieve.tables.arrow import tasks_for
from geosieve.tables.publish import Leaf, Publication
from geosieve.tables.schemas import IMAGE_KEY, PAIRS, REJECTS

JOB = "build_pairs"
_BYTES_PER_FILE = 128 << 20


def _leaves(config: PairsConfig) -> list[Leaf]:
    return [Leaf(REJECTS, {"job": JOB, "part": config.name}), Leaf(PAIRS, {"pair_set": config.name})]


@publishes(_leaves)
def build_pairs(context: Context[PairsConfig], publication: Publication) -> int:
    """Write `pairs` and `rejects` of this run. Returns the number of images.

    InputError, with nothing committed, if there are no such images, chips or splits, if an image has two chips or two
    splits, or if there is no pair.
    """
    config, report, spark = context.config, context.report, context.spark
    with report.stage("inputs"):
        images = read_images(spark, config.images)
        images.tell(report)
        chips = read_chips(spark, config.chips)
        splits = None if config.splits is None else read_splits(spark, config.splits)
        names = {} if splits is None or config.splits is None else split_names(splits, config.splits.only)
        report.rows_in = images.count
        report.details["runs"] = {
            "images": [run.uri for run in images.runs],
            "chips": [run.uri for run in chips.runs],
            "splits": None if splits is None else splits.run.uri,
        }
    found = candidates(images.rows, chips.references(), splits, names, config)
    if context.dry_run:
        told: dict[str, Any] = {f"split {name}": f"{n} images" for name, n in names.items()}
        told["chips"] = ", ".join(f"{run.rows} rows in {run.uri}" for run in chips.runs)
        context.show_plan({**images.found(), **told}, {"candidates": found})
        return 0
    with ExitStack() as kept:
        kept.enter_context(rows_with_files(spark))
        with report.stage("join"):
            # Adaptive execution does not coalesce what is kept, and each partition costs a task.
            found = kept.enter_context(on_disk(found.coalesce(tasks_for(spark, report.rows_in))))
            size = _count(found, report)
            chosen = found.where(CHOSEN)
        with report.stage("photos"):
            made = kept.enter_context(on_disk(photos(chosen, size, config)))
            facts = kept.enter_context(on_disk(made.drop("photo")))
            if facts.where(CHOSEN).first() is None:
                raise InputError(
                    f"there is no pair: {_refused(found, facts)}",
                    where=config.images.root,
                    hint="images, chips and splits must be of the same sources",
                )
        with report.stage("write"):
            rows = _paired(made.where(CHOSEN), chips, size)
            report.rows_out = publication.write(PAIRS, rows)
        with report.stage("rejects"):
            columns = [F.col("image_id").alias("id"), *map(F.col, ("uri", "stage", "error_class", "message"))]
            refused = [
                frame.where(f"NOT ({CHOSEN})").withColumn("stage", F.lit(stage)).select(*columns)
                for frame, stage in ((found, "choose"), (facts, "photo"))
            ]
            publication.write(REJECTS, refused[0].unionByName(refused[1]))
            report.rejected = _refused(found, facts)
        with report.stage("report"):
            good = facts.where(CHOSEN)
            report.details |= {f"{name}s": _by(good, name) for name in ("area", "split", "licence")}
            _warn(report, config, found, chips)
    return report.rows_in


def _count(found: DataFrame, report: JobReport) -> int:
    """Check that the joins gave one row per image. Returns the bytes of the photos that are chosen, stored."""
    length = F.when(F.expr(CHOSEN), F.coalesce("length", F.lit(0)))
    (row,) = found.agg(F.count("*").alias("rows"), F.coalesce(F.sum(length), F.lit(0)).alias("bytes")).collect()
    if row["rows"] != report.rows_in:
        raise InputError("ids occur more than once in the runs of chips or splits", hint="make them again")
    return int(row["bytes"])


def _paired(made: DataFrame, chips: Chips, size: int) -> DataFrame:
    """The rows of the table. `size`: bytes of the photos."""
    given = {name: f"chip_{name}" for name in ("width", "height", "format", "transform", "epsg", "resolution_m")}
    ground = chips.rows.select(
        *IMAGE_KEY,
        F.col("run_id").alias(CHIP_RUN),
        *("view", "chip", "raster_uri", "strip_id"),
        F.col("captured_at").alias("chip_captured_at"),
        *(F.col(name).alias(to) for name, to in given.items()),
    )
    total = size + sum(run.bytes for run in chips.runs)
    tasks = max(made.sparkSession.sparkContext.defaultParallelism, -(-total // _BYTES_PER_FILE))
    keys = [*IMAGE_KEY, CHIP_RUN]
    # The hint keeps Spark from sending all chips to every task.
    both = made.repartition(tasks, *keys).hint("merge").join(ground.repartition(tasks, *keys), keys)
    own = ("split", "area", *METADATA, "photo", "photo_width", "photo_height")
    of_chip = ("view", "chip", "raster_uri", "strip_id", "chip_captured_at", *given.values())
    return both.select(*IMAGE_KEY, *own, *of_chip)


def _by(rows: DataFrame, name: str) -> dict[str, int]:
    """Pairs by the values of a column, the most frequent 100."""
    value = F.substring(F.coalesce(name, F.lit("none")), 1, 100).alias("value")
    counted = rows.groupBy(value).count().orderBy(F.desc("count"), "value").limit(100)
    return {row["value"]: int(row["count"]) for row in counted.collect()}


def _refused(found: DataFrame, facts: DataFrame) -> dict[str, int]:
    counted: dict[str, int] = {}
    for frame in (found, facts):
        for row in frame.where(f"NOT ({CHOSEN})").groupBy("error_class").count().collect():
            counted[row["error_class"]] = counted.get(row["error_class"], 0) + int(row["count"])
    return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))


def _warn(report: JobReport, config: PairsConfig, found: DataFrame, chips: Chips) -> None:
    (row,) = (
        found.where(CHOSEN)
        .agg(
            F.count_if(F.col("content_sha256").isNull()).alias("unchecked"),
            F.count_if(F.col("author").isNull()).alias("anonymous"),
        )
        .collect()
    )
    gone = sum(report.rejected.get(error_class, 0) for error_class in (MISSING_FILE, CHANGED_CONTENT))
    if gone:
        report.warn(f"the files of {gone} images are gone or have changed since they were catalogued")
    if row["unchecked"]:
        report.warn(
            f"{row['unchecked']} photos have no checksum: nothing tells whether they are the ones that were catalogued "
            "(a source has checksums if its files are read with `fingerprint`)"
        )
    if row["anonymous"] and config.crowd is not None:
        report.warn(f"{row['anonymous']} photos have no author: crowd does not limit them")
    with_photo = found.where(F.col(CHIP_RUN).isNotNull()).count()
    report.details["chips_without_photo"] = chips.references().count() - with_photo
