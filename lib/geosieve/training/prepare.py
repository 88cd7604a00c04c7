"""`prepare_training_set`: small images with labels, shuffled into even files.

1. Images, labels and splits are joined. Only references to bytes move.
2. In the order of files and archives, the bytes are read, decoded, made small and encoded. Spark keeps the small images
   on disk.
3. The images that could be read are counted, and each gets its file and place by a seeded hash (`files`).
4. One shuffle brings each file's images to one task, which writes them as one row group.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark import StorageLevel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import BinaryType, IntegerType, LongType, StringType, StructField, StructType

from geosieve.images.content import NO_BYTES, NO_BYTES_MESSAGE, REFERENCE, WITHOUT_BYTES, placed, read_contents
from geosieve.images.headers import Refusal
from geosieve.images.isolation import decoder
from geosieve.images.photo_rows import Row
from geosieve.images.read import Images, read_images
from geosieve.job.main import Context
from geosieve.job.publishing import publishes
from geosieve.labels.read import CommittedLabels, read_labels
from geosieve.partitions.read import LABEL_JOB
from geosieve.runtime.errors import ConfigError, InputError, IntegrityError
from geosieve.runtime.store import open_input
from geosieve.splits.classes import label_column
from geosieve.splits.read import CommittedSplits, read_splits
from geosieve.tables.publish import Leaf, Publication
from geosieve.tables.read import read_committed
from geosieve.tables.schemas import PARTITIONS, REJECTS
from geosieve.training.config import TrainingSetConfig
from geosieve.training.facts import SQUARES, SUMS, broken_rules, channels, class_counts, rule_partitions
from geosieve.training.files import SplitPlan, files_for, in_files
from geosieve.training.members import KEYS, LAT, LON, METADATA, count_members, in_set, joined, split_names
from geosieve.training.shrink import SmallImage, shrink

JOB, SHARDS_FILE = "prepare_training_set", "_shards.json"

_SMALL = [
    StructField("image", BinaryType()),
    *(StructField(name, IntegerType()) for name in ("width", "height", "bytes")),
    *(StructField(name, LongType()) for name in (*SUMS, *SQUARES)),
    *(StructField(name, StringType()) for name in ("error_class", "message")),
]
"""Columns that making an image small adds."""
_ROWS_AT_ONCE, _BYTES_AT_ONCE = 64, 8 << 20  # of a batch from Python to Spark


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
            found = _on_disk(found, kept)
            members = count_members(found, images, names, report)
            report.rows_in = members.rows
        with report.stage("decode"):
            chosen = found.where(in_set(names)).drop("lat", "lon")
            small = _on_disk(_small(chosen, members.bytes, config), kept)
            # What follows needs the keys several times, and the images once.
            keys = _on_disk(small.drop("image"), kept)
            counted = _count(keys)
        good = keys.where("error_class IS NULL")
        plans = _plan(context, names, counted)
        with report.stage("write"):
            rows = in_files(good, small.where("error_class IS NULL"), plans)
            report.rows_out = publication.write(config.table(), rows.select(*_columns(config)))
            files = _written_files(spark, publication, config, plans)
            publication.attach(config.table(), SHARDS_FILE, json.dumps({"files": files}, indent=0))
        with report.stage("rejects"):
            publication.write(REJECTS, keys.where("error_class IS NOT NULL").select(*_reject_columns()))
            report.rejected = _rejected(counted)
        with report.stage("report"):
            report.details["partitions"] = _hashes(spark, config, labels)
            report.details["splits"] = _told(counted, plans, class_counts(good, labels), files)
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
    used = read_committed(spark, config.labels.root, PARTITIONS, job=LABEL_JOB, run_id=labels.run.run_id)
    known = {row["partition"] for row in used.select("partition").collect()}
    more = [name for name in of_rules if name in known and name not in labels.partitions]
    wanted = (*labels.partitions, *more)
    return CommittedLabels(spark, labels.root, labels.run, wanted), sorted(set(of_rules) - known)


def _runs(images: Images, labels: CommittedLabels, splits: CommittedSplits) -> dict[str, Any]:
    return {"images": [run.uri for run in images.runs], "labels": labels.run.uri, "splits": splits.run.uri}


def _on_disk(frame: DataFrame, kept: ExitStack) -> DataFrame:
    """`frame`, computed once; on disk, for it may be larger than memory."""
    stored = frame.persist(StorageLevel.DISK_ONLY)
    kept.callback(stored.unpersist)
    return stored


def _small(members: DataFrame, size: int, config: TrainingSetConfig) -> DataFrame:
    """The members with the columns _SMALL, without REFERENCE but `uri`. `size`: bytes of all."""
    kept = [field for field in members.schema.fields if field.name == "uri" or field.name not in REFERENCE]
    schema = StructType([*kept, *_SMALL])
    arrow = to_arrow_schema(schema)
    limits, side, quality = config.limits, config.side, config.quality

    def make(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        rows = (row for batch in batches for row in batch.to_pylist())
        with decoder() as decode:
            made = (
                {
                    **row,
                    **_columns_of(content if isinstance(content, Refusal) else shrink(content, side, quality, decode)),
                }
                for row, content in read_contents(rows, limits)
            )
            yield from _batches(made, arrow)

    with_bytes = placed(members.where(f"NOT {WITHOUT_BYTES}"), size).mapInArrow(make, schema)
    values = {"error_class": F.lit(NO_BYTES), "message": F.lit(NO_BYTES_MESSAGE)}
    without = members.where(WITHOUT_BYTES).select(
        *(F.col(field.name) for field in kept),
        *(values.get(field.name, F.lit(None)).cast(field.dataType).alias(field.name) for field in _SMALL),
    )
    return with_bytes.unionByName(without)


def _columns_of(found: SmallImage | Refusal) -> Row:
    if isinstance(found, Refusal):
        return {"error_class": found.error_class, "message": found.message[:500]}
    sums = dict(zip((*SUMS, *SQUARES), (*found.sums, *found.squares), strict=True))
    size = {"width": found.width, "height": found.height, "bytes": len(found.content)}
    return {"image": found.content, **size, **sums}


def _batches(rows: Iterator[Row], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    some: list[Row] = []
    size = 0
    for row in rows:
        some.append(row)
        size += row.get("bytes", 0)
        if len(some) == _ROWS_AT_ONCE or size > _BYTES_AT_ONCE:
            yield pa.RecordBatch.from_pylist(some, schema=schema)
            some, size = [], 0
    if some:
        yield pa.RecordBatch.from_pylist(some, schema=schema)


def _count(keys: DataFrame) -> dict[tuple[str, str | None], Any]:
    """Rows, bytes, pixels and sums of colours by split and error class (None: good)."""
    pixels = F.sum(F.col("width").cast("bigint") * F.col("height")).alias("pixels")
    sums = [F.sum(name).alias(name) for name in ("bytes", *SUMS, *SQUARES)]
    rows = keys.groupBy("split", "error_class").agg(F.count("*").alias("rows"), pixels, *sums).collect()
    return {(row["split"], row["error_class"]): row for row in sorted(rows, key=str)}


def _rejected(counted: dict[tuple[str, str | None], Any]) -> dict[str, int]:
    totals: dict[str, int] = {}
    for (_, error_class), row in counted.items():
        if error_class is not None:
            totals[error_class] = totals.get(error_class, 0) + row["rows"]
    return totals


def _plan(
    context: Context[TrainingSetConfig], names: Iterable[str], counted: dict[tuple[str, str | None], Any]
) -> dict[str, SplitPlan]:
    """The files of each split. InputError if a split has no image."""
    config, plans = context.config, {}
    for name in names:
        row = counted.get((name, None))
        if row is None:
            refused = {error_class: row["rows"] for (split, error_class), row in counted.items() if split == name}
            raise InputError(
                f"split {name} has no image that can be used; refused: {refused or 'none'}",
                hint="name the splits that are wanted (splits.only)",
            )
        files = files_for(row["rows"], row["bytes"], config.rows_per_file, config.ranks)
        if files % config.ranks:
            context.report.warn(
                f"split {name} has only {row['rows']} images: {files} files, which {config.ranks} ranks cannot share "
                "evenly"
            )
        plans[name] = SplitPlan(row["rows"], files)
    return plans


def _columns(config: TrainingSetConfig) -> list[Any]:
    """The columns of the table, of rows of `in_files`."""
    given = (*KEYS, "split", "shard", "shard_row", "image", "width", "height", *METADATA)
    positions = [F.col(LAT).alias("lat"), F.col(LON).alias("lon")]
    return [*given, *positions, *(F.col(label_column(name)).alias(name) for name in config.labels.partitions)]


def _reject_columns() -> list[Any]:
    given = ("error_class", "message")
    return [F.col("image_id").alias("id"), F.col("uri"), F.lit("shrink").alias("stage"), *given]


def _written_files(
    spark: SparkSession, publication: Publication, config: TrainingSetConfig, plans: dict[str, SplitPlan]
) -> list[dict[str, Any]]:
    """Name, split, shard, rows and bytes of each file that was written, in order.

    ConfigError if a file has several row groups, IntegrityError if one has other rows than it should have.
    """
    leaf = publication.uris[-1]
    names = sorted(uri.rpartition("/")[2] for uri in publication.written(config.table()).inputFiles())
    uris = [f"{leaf}/{name}" for name in names]
    facts = spark.sparkContext.parallelize(uris, len(uris)).map(_footer).collect()
    planned = [(split, shard, rows) for split, plan in plans.items() for shard, rows in enumerate(plan.rows_of_files)]
    files = []
    for name, (groups, split, shard, rows, size) in zip(names, facts, strict=True):
        if groups != 1:
            raise ConfigError(
                f"a file has {groups} row groups, not one: tasks had too little memory",
                where=f"{leaf}/{name}",
                hint="raise spark.executor.memory, or lower rows_per_file",
            )
        files.append({"name": name, "split": split, "shard": shard, "rows": rows, "bytes": size})
    if [(file["split"], file["shard"], file["rows"]) for file in files] != planned:
        raise IntegrityError("the files that were written are not those that were planned", where=leaf)
    return files


def _footer(uri: str) -> tuple[int, str | None, int | None, int, int]:
    """Number of row groups, split, shard, rows and bytes of a file; split and shard None if they are not the same."""
    with open_input(uri) as file:
        metadata = pq.ParquetFile(file).metadata
        group = metadata.row_group(0)
        columns = {group.column(i).path_in_schema: group.column(i).statistics for i in range(group.num_columns)}
        split, shard = (found.min if found.min == found.max else None for found in (columns["split"], columns["shard"]))
        return metadata.num_row_groups, split, shard, metadata.num_rows, file.size()


def _hashes(spark: SparkSession, config: TrainingSetConfig, labels: CommittedLabels) -> dict[str, str]:
    """The hashes of the partitions whose labels the training set has."""
    used = read_committed(spark, labels.root, PARTITIONS, job=LABEL_JOB, run_id=labels.run.run_id)
    hashes = {row["partition"]: row["partition_hash"] for row in used.select("partition", "partition_hash").collect()}
    return {name: hashes[name] for name in config.labels.partitions}


def _told(
    counted: dict[tuple[str, str | None], Any],
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
            "rejected": {error: row["rows"] for (split, error), row in counted.items() if split == name and error},
            **channels(counted[name, None]),
            "classes": classes[name],
        }
        for name, plan in plans.items()
    }
