"""Which image goes into which file: exact and even, in random order, whatever the tasks.

The images of a split are ordered by `SHUFFLE`, then by source and id. Of n files for N images, file i gets the places
from ⌊i N / n⌋ to ⌊(i + 1) N / n⌋. Places are counted in buckets of the first bits of the random number, so no task
sorts a whole split. The driver holds a row per bucket and per file, and none per image.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import pandas as pd
from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from geosieve.tables.schemas import IMAGE_KEY
from geosieve.training.members import SHUFFLE

SHARDS_FILE = "_shards.json"
"""Beside the shards: the list of their files, in order."""
FILE_BYTES = 128 << 20
"""Bytes of images per file, at most (on average of a split). While it is written, a file is in the memory of its task;
training_shards begins another row group at four times as many."""

_FILES_PER_RANK = 4
_ORDER = (SHUFFLE, *IMAGE_KEY)
_KEY = f"struct<{SHUFFLE}:bigint,source:string,image_id:string>"
_BUCKET_BITS = 12
_ROW_BITS = 33  # of `monotonically_increasing_id`; the bits above are the number of the Spark partition

Key = tuple[int, str, str]
"""Values of `SHUFFLE`, source and image id."""


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


def bucket() -> Column:
    """The bucket of a row by `SHUFFLE`: the order of buckets is that of their rows."""
    return F.shiftright(SHUFFLE, 64 - _BUCKET_BITS)


def in_files(
    keys: DataFrame, images: DataFrame, plans: Mapping[str, SplitPlan], counts: Mapping[str, Mapping[int, int]]
) -> DataFrame:
    """`images` with the columns shard and shard_row: one Spark partition per file, in its order.

    `keys` has split, SHUFFLE, source and image_id of the same rows. `plans` and `counts`, the number of rows by bucket,
    are by split. The Spark partitions are in the order of the plans, then of the shards.
    """
    total = sum(plan.files for plan in plans.values())
    firsts = _first_keys(keys.withColumn("bucket", bucket()), plans, counts)
    spread = _keys_of_partitions(keys.sparkSession, total)
    lookup = F.broadcast(_lookup(keys.sparkSession, firsts, counts, spread))
    found = images.withColumn("bucket", bucket()).join(lookup, ["split", "bucket"])
    here = f"struct({', '.join(_ORDER)})"
    found = found.withColumn("passed", F.expr(f"size(filter(firsts, key -> key <= {here}))"))
    placed = found.withColumn("shard", F.expr("before + passed")).repartition(total, F.expr("spread[passed]"))
    row = F.monotonically_increasing_id().bitwiseAND(F.lit((1 << _ROW_BITS) - 1)).cast("int")
    added = ("bucket", "before", "firsts", "spread", "passed")
    return placed.sortWithinPartitions(*_ORDER).withColumn("shard_row", row).drop(*added)


def _first_keys(
    keys: DataFrame, plans: Mapping[str, SplitPlan], counts: Mapping[str, Mapping[int, int]]
) -> dict[str, list[Key]]:
    """The key of the first image of each file, by split, in ascending order."""
    starts = []
    for split, plan in plans.items():
        of_split = sorted(counts[split].items())
        before = accumulate((n for _, n in of_split), initial=0)
        starts += [(split, at, start, plan.rows, plan.files) for (at, _), start in zip(of_split, before, strict=False)]
    schema = "split string, bucket bigint, start bigint, rows bigint, files bigint"
    started = F.broadcast(_frame(keys.sparkSession, starts, schema))
    within = F.row_number().over(Window.partitionBy("split", "bucket").orderBy(*_ORDER))
    placed = keys.select("split", "bucket", *_ORDER, within.alias("within")).join(started, ["split", "bucket"])
    # Place p lies in file i if ⌊i N / n⌋ <= p < ⌊(i + 1) N / n⌋, that is, i = ⌈(p + 1) n / N⌉ - 1.
    placed = placed.withColumn("place", F.expr("start + within - 1"))
    placed = placed.withColumn("shard", F.expr("((place + 1) * files - 1) div rows"))
    found: dict[str, list[Key]] = {split: [] for split in plans}
    for split, _, *key in sorted(
        placed.where("place = shard * rows div files").select("split", "shard", *_ORDER).collect()
    ):
        found[split].append((key[0], key[1], key[2]))
    return found


def _lookup(
    spark: SparkSession,
    firsts: Mapping[str, list[Key]],
    counts: Mapping[str, Mapping[int, int]],
    spread: Sequence[int],
) -> DataFrame:
    """One row per split and bucket, to find the file of an image.

    `before`: the last file that begins in an earlier bucket (-1: none). `firsts`: first keys of the files that begin in
    the bucket. `spread`: of these files, and before them of the file `before`, the keys that lead to their partitions.
    """
    rows, file = [], 0
    for split, keys in firsts.items():
        buckets = [key[0] >> (64 - _BUCKET_BITS) for key in keys]
        of_files = [0, *spread[file : file + len(keys)]]  # from file -1 on, which gets no image
        for at in sorted(counts[split]):
            start, end = bisect_left(buckets, at), bisect_left(buckets, at + 1)
            inside = [dict(zip(_ORDER, key, strict=True)) for key in keys[start:end]]
            rows.append((split, at, start - 1, inside, of_files[start : end + 1]))
        file += len(keys)
    schema = f"split string, bucket bigint, before int, firsts array<{_KEY}>, spread array<bigint>"
    return _frame(spark, rows, schema)


def _keys_of_partitions(spark: SparkSession, partitions: int) -> list[int]:
    """For each of `partitions` Spark partitions, a number that `repartition` sends there.

    Spark assigns rows to partitions by range (of a sample, so not exact) or by hash. To fill each partition with chosen
    rows, they get a number whose hash is that partition.
    """
    found: dict[int, int] = {}
    tried = 20 * partitions  # none of these leads to a partition with probability exp(-20)
    while len(found) < partitions:
        hashed = F.expr(f"pmod(hash(id), {partitions})").alias("partition")
        rows = spark.range(tried).groupBy(hashed).agg(F.min("id").alias("id")).collect()
        found, tried = {row["partition"]: row["id"] for row in rows}, 2 * tried
    return [found[partition] for partition in range(partitions)]


def _frame(spark: SparkSession, rows: list[tuple[Any, ...]], schema: str) -> DataFrame:
    # From pandas, by Arrow: rows would be sent through a Python worker first.
    return spark.createDataFrame(pd.DataFrame(rows, dtype=object), schema)
