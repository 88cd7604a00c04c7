"""Which image goes into which file: exact and even, in random order, whatever the tasks.

The images of a split are ordered by `SHUFFLE`, then by source and id. Of n files for N images, file i gets the places
from ⌊i N / n⌋ to ⌊(i + 1) N / n⌋. Places are counted in buckets of the first bits of the random number, so no task
sorts a whole split. The driver holds one row per bucket and per file, and none per image.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from geosieve.training.members import KEYS, SHUFFLE

FILE_BYTES = 128 << 20
"""Bytes of images per file, at most (on average of a split). While it is written, a file is in the memory of its task;
training_shards begins another row group at four times as many."""

_FILES_PER_RANK = 4
_ORDER = (SHUFFLE, *KEYS)
_KEY = f"struct<{SHUFFLE}:bigint,source:string,image_id:string>"
_ROW_BITS = 33  # of `monotonically_increasing_id`; the bits above are the number of the Spark partition


@dataclass(frozen=True)
class SplitPlan:
    """A split's number of images and of files."""

    rows: int
    files: int

    @property
    def rows_of_files(self) -> list[int]:
        """How many images each file gets."""
        ends = [i * self.rows // self.files for i in range(self.files + 1)]
        return [end - start for start, end in pairwise(ends)]


def files_for(rows: int, size: int, rows_per_file: int, ranks: int) -> int:
    """The number of files for `rows` images of `size` bytes.

    It is a multiple of `ranks`, so that each gets equally many, and at least four for each; but at most `rows`.
    """
    least = max(-(-rows // rows_per_file), -(-size // FILE_BYTES), _FILES_PER_RANK * ranks)
    return min(rows, -(-least // ranks) * ranks)


def in_files(keys: DataFrame, images: DataFrame, plans: Mapping[str, SplitPlan]) -> DataFrame:
    """`images` with the columns shard and shard_row: one Spark partition per file, in its order.

    `keys` has split, SHUFFLE, source and image_id of the same rows, and is read twice. `plans`: by split; the Spark
    partitions are in the order of its keys, then of the shards.
    """
    spark, total = keys.sparkSession, sum(plan.files for plan in plans.values())
    bits = max(1, (total - 1).bit_length())
    bucket = F.shiftright(SHUFFLE, 64 - bits).alias("bucket")
    counted = keys.groupBy("split", bucket).count().orderBy("split", "bucket").collect()
    firsts = _first_keys(keys.withColumn("bucket", bucket), counted, plans)
    lookup = F.broadcast(_lookup(spark, counted, firsts, 64 - bits))
    found = images.withColumn("bucket", bucket).join(lookup, ["split", "bucket"])
    here = f"struct({', '.join(_ORDER)})"
    found = found.withColumn("shard", F.expr(f"before + size(filter(firsts, key -> key <= {here}))"))
    names = [(split, shard) for split, plan in plans.items() for shard in range(plan.files)]
    numbers = [(*name, number) for name, number in zip(names, _keys_of_partitions(spark, total), strict=True)]
    spread = spark.createDataFrame(numbers, "split string, shard int, spread bigint")
    placed = found.join(F.broadcast(spread), ["split", "shard"]).repartition(total, "spread")
    row = F.monotonically_increasing_id().bitwiseAND(F.lit((1 << _ROW_BITS) - 1)).cast("int")
    return (
        placed.sortWithinPartitions(*_ORDER).withColumn("shard_row", row).drop("bucket", "before", "firsts", "spread")
    )


def _first_keys(keys: DataFrame, counted: list[Any], plans: Mapping[str, SplitPlan]) -> dict[str, list[Any]]:
    """The key of the first image of each file, by split, in ascending order."""
    starts = []
    for split, plan in plans.items():
        buckets = [row for row in counted if row["split"] == split]
        before = accumulate((row["count"] for row in buckets[:-1]), initial=0)
        starts += [
            (split, row["bucket"], start, plan.rows, plan.files) for row, start in zip(buckets, before, strict=True)
        ]
    schema = "split string, bucket bigint, start bigint, rows bigint, files bigint"
    started = F.broadcast(keys.sparkSession.createDataFrame(starts, schema))
    within = F.row_number().over(Window.partitionBy("split", "bucket").orderBy(*_ORDER))
    placed = keys.select("split", "bucket", *_ORDER, within.alias("within")).join(started, ["split", "bucket"])
    # Place p lies in file i if ⌊i N / n⌋ <= p < ⌊(i + 1) N / n⌋, that is, i = ⌈(p + 1) n / N⌉ - 1.
    placed = placed.withColumn("place", F.expr("start + within - 1"))
    placed = placed.withColumn("shard", F.expr("((place + 1) * files - 1) div rows"))
    first = placed.where("place = shard * rows div files").orderBy("split", "shard")
    found: dict[str, list[Any]] = {split: [] for split in plans}
    for row in first.select("split", *_ORDER).collect():
        found[row["split"]].append(tuple(row[1:]))
    return found


def _lookup(spark: SparkSession, counted: list[Any], firsts: Mapping[str, list[Any]], shift: int) -> DataFrame:
    """For each bucket: the last file that begins `before` it (-1: none), and the first keys of files inside it."""
    rows = []
    buckets = {split: [key[0] >> shift for key in keys] for split, keys in firsts.items()}
    for split, bucket, _ in counted:
        start, end = bisect_left(buckets[split], bucket), bisect_left(buckets[split], bucket + 1)
        rows.append((split, bucket, start - 1, firsts[split][start:end]))
    return spark.createDataFrame(rows, f"split string, bucket bigint, before int, firsts array<{_KEY}>")


def _keys_of_partitions(spark: SparkSession, partitions: int) -> list[int]:
    """For each of `partitions` Spark partitions, a number that `repartition` sends there.

    Spark assigns rows to partitions by range (of a sample, so not exact) or by hash. To fill each partition with chosen
    rows, they get a number whose hash is that partition.
    """
    found: dict[int, int] = {}
    tried = 20 * partitions  # a number misses a partition with probability exp(-20)
    while len(found) < partitions:
        hashed = F.expr(f"pmod(hash(id), {partitions})").alias("partition")
        rows = spark.range(tried).groupBy(hashed).agg(F.min("id").alias("id")).collect()
        found, tried = {row["partition"]: row["id"] for row in rows}, 2 * tried
    return [found[partition] for partition in range(partitions)]
