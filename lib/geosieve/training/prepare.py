"""`prepare_training_set`: small images with labels, shuffled into even files.

1. Images, labels and splits are joined. Only references to bytes move.
2. In the order of files and archives, the bytes are read, decoded, made small and encoded. Spark keeps the small images
   on disk.
3. The images that could be read are counted, and each gets its file and place by a seeded hash (`files`).
4. One shuffle brings each file's images to one task, which writes them as one row group.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from geosieve.images.content import CHANGED_CONTENT, MISSING_FILE
from geosieve.images.read import Images, read_images
from geosieve.job.main import Context
from geosieve.job.publishing import publishes
from geosieve.labels.read import CommittedLabels, read_labels
from geosieve.runtime.errors import InputError
from geosieve.runtime.frames import on_disk
from geosieve.splits.classes import label_column
from geosieve.splits.config import rule_partitions
from geosieve.splits.read import CommittedSplits, read_splits, split_names
from geosieve.tables.publish import Leaf, Publication
from geosieve.tables.schemas import IMAGE_KEY, REJECTS
from geosieve.training.config import TrainingSetConfig
from geosieve.training.facts import (
    Outcomes,
    broken_rules,
    channels,
    class_counts,
    count_outcomes,
    rejected,
)
from geosieve.training.files import SHARDS_FILE, SplitPlan, files_for, in_files
from geosieve.training.members import LAT, LON, METADATA, count_members, in_set, joined
from geosieve.training.small_images import small_images
from geosieve.training.written import written_files

JOB = "prepare_training_set"


def _leaves(config: TrainingSetConfig) -> list[Leaf]:
    return [Leaf(REJECTS, {"job": JOB, "part": config.name}), Leaf(config.table(), {"training_set": config.name})]


@publishes(_leaves)
def prepare_training_set(context: Context[TrainingSetConfig], publication: Publication) -> int:
    """Write `training_shards` and `rejects` of this run. Returns the number of images of the chosen splits with labels.

    InputError, with nothing committed, if there are no such images, labels or splits, or if a split would have no
    image. ConfigError if executors have too little memory for files of one row group.
    """
    config, report, spark = context.config, context.report, context.spark
    with report.stage("inputs"):
        images = read_images(spark, config.images)
        images.tell(report)
        splits = read_splits(spark, config.splits)
        rules = [split for split in splits.config().splits if split.partition is not None]
        labels, unlabelled = _labels(spark, config, rule_partitions(rules))
        names = split_names(splits, config.splits.only)
        report.details["runs"] = _runs(images, labels, splits)
    found = joined(images, labels, splits, config.seed)
    if context.dry_run:
        told = {f"split {name}": f"{n} images in {splits.run.uri}" for name, n in names.items()}
        context.show_plan(
            {**images.found(), **told, "labels": f"{labels.run.rows} rows in {labels.run.uri}"},
            {"the set": found.where(in_set(names))},
        )
        return 0
    with ExitStack() as kept:
        with report.stage("join"):
            found = kept.enter_context(on_disk(found))
            members = count_members(found, images, names, report)
            report.rows_in = members.rows
        with report.stage("decode"):
            chosen = found.where(in_set(names)).drop("lat", "lon")
            small = kept.enter_context(on_disk(small_images(chosen, members.bytes, config)))
            # What follows needs the images once, and everything else several times.
            keys = kept.enter_context(on_disk(small.drop("image", LAT, LON, *METADATA)))
            outcomes, buckets = count_outcomes(keys)
        good = keys.where("error_class IS NULL")
        plans = _plan(context, names, outcomes)
        with report.stage("write"):
            rows = in_files(good, small.where("error_class IS NULL"), plans, buckets)
            report.rows_out = publication.write(config.table(), rows.select(*_columns(config)))
            files = written_files(publication, config.table(), plans)
            publication.attach(config.table(), SHARDS_FILE, json.dumps({"files": files}, indent=0))
        with report.stage("rejects"):
            publication.write(REJECTS, keys.where("error_class IS NOT NULL").select(*_reject_columns()))
            report.rejected = rejected(outcomes, names)
            gone = sum(report.rejected.get(error_class, 0) for error_class in (MISSING_FILE, CHANGED_CONTENT))
            if gone:
                report.warn(f"the files of {gone} images are gone or have changed since they were catalogued")
        with report.stage("report"):
            report.details["partitions"] = {name: labels.hashes[name] for name in config.labels.partitions}
            report.details["splits"] = _told(outcomes, plans, class_counts(good, labels), files)
            checked = [split for split in rules if split.name in names and split.partition not in unlabelled]
            for broken in broken_rules(checked, good, labels):
                report.warn(broken)
            for partition in unlabelled:
                report.warn(
                    f"the splits have a cap or balance on {partition}: not checked, as the run of labels lacks it"
                )
    return report.rows_in


def _labels(spark: SparkSession, config: TrainingSetConfig, of_rules: list[str]) -> tuple[CommittedLabels, list[str]]:
    """The labels of the wanted partitions and of those of the splits' rules, and the latter that the run lacks."""
    labels = read_labels(spark, config.labels.root, config.labels.run, config.labels.partitions)
    more = [name for name in of_rules if name in labels.hashes and name not in labels.partitions]
    wanted = replace(labels, partitions=(*labels.partitions, *more))
    return wanted, sorted(set(of_rules) - labels.hashes.keys())


def _runs(images: Images, labels: CommittedLabels, splits: CommittedSplits) -> dict[str, Any]:
    return {"images": [run.uri for run in images.runs], "labels": labels.run.uri, "splits": splits.run.uri}


def _plan(context: Context[TrainingSetConfig], names: Iterable[str], outcomes: Outcomes) -> dict[str, SplitPlan]:
    """The files of each split. InputError if a split has no image."""
    config, plans = context.config, {}
    for name in names:
        good = outcomes.get(name, {}).get(None)
        if good is None:
            refused = rejected(outcomes, [name])
            raise InputError(
                f"split {name} has no image that can be used; refused: {refused or 'none'}",
                hint="name the splits that are wanted (splits.only)",
            )
        files = files_for(good["images"], good["bytes"], config.rows_per_file, config.ranks)
        if files % config.ranks:
            context.report.warn(
                f"split {name} has only {good['images']} images: {files} files, and {config.ranks} ranks cannot share "
                "them evenly"
            )
        plans[name] = SplitPlan(good["images"], files)
    return plans


def _columns(config: TrainingSetConfig) -> list[Any]:
    """The columns of the table, of rows of `in_files`."""
    given = (*IMAGE_KEY, "split", "shard", "shard_row", "image", "width", "height", *METADATA)
    positions = [F.col(LAT).alias("lat"), F.col(LON).alias("lon")]
    return [*given, *positions, *(F.col(label_column(name)).alias(name) for name in config.labels.partitions)]


def _reject_columns() -> list[Any]:
    given = ("error_class", "message")
    return [F.col("image_id").alias("id"), F.col("uri"), F.lit("prepare").alias("stage"), *given]


def _told(
    outcomes: Outcomes,
    plans: dict[str, SplitPlan],
    classes: dict[str, dict[str, dict[str, Any]]],
    files: list[dict[str, Any]],
) -> dict[str, dict[str, Any]]:
    """Per split: images, files, bytes of the files, colours of all pixels, refused images and classes."""
    return {
        name: {
            "images": plan.rows,
            "files": plan.files,
            "bytes": sum(file["bytes"] for file in files if file["split"] == name),
            "rejected": rejected(outcomes, [name]),
            **channels(outcomes[name][None]),
            "classes": classes[name],
        }
        for name, plan in plans.items()
    }
