"""`build_splits`: assigns every image to a split, or states why it is in none.

1. Draw: each image gets a candidate split, by its source or by a hash. The hash depends only on the seed and on the
   image's group, S2 cell or id. An image therefore keeps its draw when more images are added.
2. Finish: the splits are processed in order of precedence. Each split leaves out the images that conflict with what the
   earlier splits finally kept.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from typing import Any

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from geosieve.images.read import NO_POSITION, POSITIONED, Images, read_images, refuse_unknown_sources
from geosieve.job.main import Context
from geosieve.job.publishing import publishes
from geosieve.runtime.errors import InputError, IntegrityError
from geosieve.runtime.frames import anew_on_disk
from geosieve.runtime.report import JobReport
from geosieve.splits import quotas, rules
from geosieve.splits.classes import Classes, label_column, read_classes
from geosieve.splits.config import LEFT_OUT, PERCEPTUAL_HASH, Balance, Cap, Cells, Split, SplitConfig, fraction
from geosieve.splits.groups import with_groups
from geosieve.splits.near_duplicates import with_near_duplicates
from geosieve.splits.receipt import count_outcomes, receipt_rows, summarize
from geosieve.tables.arrow import tasks_for
from geosieve.tables.publish import Leaf, Publication
from geosieve.tables.schemas import SPLIT_RECEIPT, SPLITS


def _leaves(config: SplitConfig) -> list[Leaf]:
    values = {"split_set": config.name}
    return [Leaf(SPLIT_RECEIPT, values), Leaf(SPLITS, values)]


@publishes(_leaves)
def build_splits(context: Context[SplitConfig], publication: Publication) -> int:
    """Split the images of the chosen runs and publish `splits` and `split_receipt`. Return the number of images read.

    InputError: an image id occurs twice in a source, a source or the labels of a partition are missing, or a cap or
    balance cannot be satisfied. ConfigError: a cap or balance names an unknown region. IntegrityError: the counts of
    the receipt do not sum to the number of images.
    """
    config, report, spark = context.config, context.report, context.spark
    with report.stage("inputs"):
        chosen = _read_images(spark, config)
        chosen.tell(report)
        images = chosen.rows
        classes = read_classes(spark, config.labels, config.partitions) if config.labels else None
        report.rows_in = chosen.count
    if context.dry_run:
        found = chosen.found()
        found |= {"labels": f"{classes.run.rows} rows in {classes.run.uri}"} if classes else {}
        # Without groups, because finding them runs joins.
        ungrouped = config.model_copy(update={"groups": []})
        context.show_plan(found, {"drawn": _drawn(ungrouped, images, classes, report.rows_in)})
        return 0
    with ExitStack() as kept:
        splitter = _Splitter(config, classes, kept, tasks_for(spark, report.rows_in))
        with report.stage("draw"):
            drawn = splitter.keep(_drawn(config, images, classes, report.rows_in))
            _refuse_repeated_ids(drawn)
        done = [drawn.where("drawn IS NULL")]
        for split in config.splits:
            with report.stage(f"split_{split.name}"):
                done.append(splitter.finish(split, drawn.where(F.col("drawn") == split.name), done))
        with report.stage("write"):
            rows = reduce(DataFrame.unionByName, done)
            report.rows_out = publication.write(SPLITS, rows.select(*_split_columns()))
            outcomes = count_outcomes(rows, config.partitions)
            if int(outcomes[outcomes["partition"].isna()]["images"].sum()) != report.rows_out:
                raise IntegrityError("the receipt does not add up to the images", hint="please report this")
            publication.write(SPLIT_RECEIPT, receipt_rows(spark, outcomes, classes))
    report.details["splits"] = summarize(outcomes)
    if PERCEPTUAL_HASH in config.groups:
        report.details["near_duplicates"] = _near_duplicates(drawn)
    _warn(report, config, images, drawn)
    return report.rows_in


@dataclass(frozen=True)
class _Splitter:
    """Applies the rules of each split. Intermediate tables stay on disk until `kept` is closed."""

    config: SplitConfig
    classes: Classes | None
    kept: ExitStack
    tasks: int

    def keep(self, rows: DataFrame) -> DataFrame:
        """`rows`, computed once, without their plan: it would contain the rules of all splits several times."""
        # Adaptive execution does not coalesce persisted partitions, and each one costs a call to a Python worker.
        return self.kept.enter_context(anew_on_disk(rows.coalesce(self.tasks)))

    def finish(self, split: Split, rows: DataFrame, before: list[DataFrame]) -> DataFrame:
        """Apply the rules of `split` to the rows drawn for it, and set `reason` on those that it leaves out.

        `before`: the rows drawn for no split, then the finished rows of each earlier split.
        """
        earlier = reduce(DataFrame.unionByName, before).where(rules.LIVE)
        if split.known_group:
            rows = rules.leave_out(rows, ~F.col("known"), "no_group")
        if self.config.groups and len(before) > 1:
            rows = rules.apart_by_group(rows, earlier)
        if split.apart_km is not None:
            rows = rules.apart_by_distance(rows, earlier, split.apart_km, self.tasks)
        if split.spacing_km is not None:
            rows = self.keep(rules.thinned(rows, split.spacing_km))
            rows = rules.spaced(rows, split.spacing_km, self.tasks)
        if split.cap is not None:
            rows = self._cap(self.keep(rows), split.cap, f"split {split.name}")
        if split.balance is not None:
            rows = self._balance(self.keep(rows), split.balance, f"split {split.name}")
        return self.keep(rows)

    def _cap(self, rows: DataFrame, cap: Cap, where: str) -> DataFrame:
        rows, counts = self._classed(rows, cap.partition, list(cap.shares))
        shares = {name: fraction(share) for name, share in cap.shares.items()}
        try:
            keep = quotas.capped(counts, shares)
        except InputError as error:
            raise InputError(error.what, where=where, hint=error.hint) from None
        return rules.surplus(rows, keep, "over_cap").drop(rules.CLASS)

    def _balance(self, rows: DataFrame, balance: Balance, where: str) -> DataFrame:
        assert self.classes is not None
        names = balance.regions or list(self.classes.regions[balance.partition].values())
        rows, counts = self._classed(rows, balance.partition, names)
        try:
            images = quotas.balanced({name: counts.get(name, 0) for name in names}, balance.images)
        except InputError as error:
            raise InputError(error.what, where=where, hint=error.hint) from None
        rows = rules.leave_out(rows, F.col(rules.CLASS).isNull(), "no_class")
        return rules.surplus(rows, dict.fromkeys(names, images), "over_balance").drop(rules.CLASS)

    def _classed(self, rows: DataFrame, partition: str, names: list[str]) -> tuple[DataFrame, dict[str | None, int]]:
        """Add the column `class` and count the live rows of each class.

        `class` is the name of the row's region if it is one of `names`, else null. Rows without a label are left out as
        `no_label`. The counts have the key None for live rows without a class.
        """
        assert self.classes is not None
        label = label_column(partition)
        regions = list(self.classes.named(partition, names).items())
        named = rows.sparkSession.createDataFrame(regions, f"`{label}` bigint, {rules.CLASS} string")
        rows = rules.leave_out(rows, F.col(label).isNull(), "no_label").join(F.broadcast(named), label, "left")
        counted = rows.where(rules.LIVE).groupBy(rules.CLASS).count().collect()
        return rows, {row[rules.CLASS]: int(row["count"]) for row in counted}


def _read_images(spark: SparkSession, config: SplitConfig) -> Images:
    images = read_images(spark, config.images)
    named = [source for split in config.splits for source in split.sources]
    refuse_unknown_sources(named, images.runs, config.images.root)
    return images


def _drawn(config: SplitConfig, images: DataFrame, classes: Classes | None, n: int) -> DataFrame:
    """One row per image with the columns that the rules need and the split it is drawn for (`drawn`); n images.

    Rows drawn for no split have a `reason`: they have no position, or their hash lies above all shares. With near
    duplicates as a group there is the column `duplicate_of`.
    """
    keys = ["author", "sequence", "content_sha256", PERCEPTUAL_HASH]
    rows = images.select("source", "image_id", "lat", "lon", *keys)
    rows = rules.with_cells(rows, config.draw.s2_level) if isinstance(config.draw, Cells) else rows
    if PERCEPTUAL_HASH in config.groups:
        assert config.near_duplicate_bits is not None
        rows = with_near_duplicates(rows, config.near_duplicate_bits, n)
    known = F.coalesce(F.lit(None).cast("string"), *_naming(config)).isNotNull()
    rows = with_groups(rows, config.groups).withColumn("known", known).drop(*keys)
    if classes is not None:
        rows = rows.join(classes.labels, ["source", "image_id"], "left")
    positioned, drawn = F.expr(POSITIONED), _lot(config)
    reason = F.when(~positioned, F.lit(NO_POSITION)).when(drawn.isNull(), F.lit("not_drawn"))
    return rows.select(
        *(column for column in rows.columns if column != "cell"),
        F.xxhash64(F.lit(config.seed), F.lit("rank"), "source", "image_id").alias("rank"),
        F.when(positioned, drawn).alias("drawn"),
        reason.alias("reason"),
        F.lit(None).cast("double").alias("distance_km"),
    )


def _naming(config: SplitConfig) -> list[str]:
    """The groups that name an author or an album, or at least a file. A perceptual hash names nobody."""
    return [key for key in config.groups if key != PERCEPTUAL_HASH]


def _lot(config: SplitConfig) -> Column:
    """The split an image is drawn for: the one that names its source, else the one whose share contains its hash.

    What is hashed is the group, the S2 cell or the image id (`config.draw`). Null if no share contains the hash.
    """
    own = F.xxhash64("source", "image_id")
    unit = F.col("cell") if isinstance(config.draw, Cells) else F.coalesce("group", own)
    hashed = F.xxhash64(F.lit(config.seed), F.lit("draw"), own if config.draw == "image" else unit)
    lot: Any = F
    for split in config.splits:
        if split.sources:
            lot = lot.when(F.col("source").isin(split.sources), F.lit(split.name))
    upto = Fraction(0)
    for split in config.splits:
        if split.share is not None:
            upto += fraction(split.share)
            last = int(upto * (1 << 64)) - (1 << 63) - 1  # hashes are int64 and start at -2^63
            lot = lot.when(hashed <= F.lit(last), F.lit(split.name))
    column: Column = lot
    return column


def _refuse_repeated_ids(rows: DataFrame) -> None:
    repeated = rows.groupBy("source", "image_id").count().where("count > 1")
    examples = repeated.orderBy("source", "image_id").limit(3).collect()
    if examples:
        listed = ", ".join(f"{row.image_id!r} of {row.source}" for row in examples)
        raise InputError(
            f"ids occur more than once in the runs of images or labels: {listed}",
            hint="choose one run of each source (images.run: latest)",
        )


def _split_columns() -> list[Column]:
    split = F.when(F.col("reason").isNull(), F.col("drawn")).otherwise(F.lit(LEFT_OUT)).alias("split")
    return [F.col("source"), F.col("image_id"), split, F.col("drawn"), F.col("reason"), F.col("distance_km")]


def _near_duplicates(drawn: DataFrame) -> dict[str, int]:
    """How many groups of near duplicates there are, and how many images are in one."""
    counts = drawn.agg(F.count_distinct("duplicate_of").alias("groups"), F.count("duplicate_of").alias("images"))
    return {name: int(count) for name, count in counts.collect()[0].asDict().items()}


def _warn(report: JobReport, config: SplitConfig, images: DataFrame, drawn: DataFrame) -> None:
    for split in config.splits:
        if report.details["splits"].get(split.name, {}).get("kept", 0) == 0:
            report.warn(f"split {split.name} is empty")
    naming = _naming(config)
    if naming:
        alone = drawn.where("NOT known AND drawn IS NOT NULL").groupBy("drawn").count().orderBy("drawn").collect()
        for row in alone:
            keys = ", ".join(naming)
            report.warn(
                f"{row['count']} images drawn for {row.drawn} have no {keys}: nothing keeps them apart by group"
            )
    if PERCEPTUAL_HASH in config.groups:
        unseen = images.where(F.col(PERCEPTUAL_HASH).isNull()).groupBy("source").count().orderBy("source").collect()
        for row in unseen:
            report.warn(
                f"{row['count']} images of source {row['source']} have no {PERCEPTUAL_HASH}: their near duplicates are "
                "not found (a source has hashes if its files are read with `fingerprint`)"
            )
