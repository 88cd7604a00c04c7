"""Which image goes into which file, against sorting in Python."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from geosieve.training.files import FILE_BYTES, SplitPlan, bucket, files_for, in_files


@given(st.integers(1, 10**9), st.integers(1, 10**5))
def test_files_are_even(rows: int, files: int) -> None:
    found = SplitPlan(rows, min(rows, files)).rows_of_files
    assert sum(found) == rows and max(found) - min(found) <= 1 and min(found) >= 1


@given(st.integers(1, 10**8), st.integers(1, 200_000), st.integers(1, 5_000), st.integers(1, 500))
def test_ranks_get_equally_many_files_of_bounded_size(rows: int, each: int, rows_per_file: int, ranks: int) -> None:
    files = files_for(rows, rows * each, rows_per_file, ranks)
    if files < rows:
        assert files % ranks == 0 and files >= 4 * ranks
        assert rows <= files * rows_per_file and rows * each <= files * FILE_BYTES
    else:
        assert files == rows
    assert files_for(4_700_000, 4_700_000 * 35_000, 2_000, 8) == 2_352


def test_rows_are_cut_where_the_sorted_list_is_even_also_among_equal_hashes(spark: SparkSession) -> None:
    rng = np.random.default_rng(0)
    hashes = rng.integers(-(2**63), 2**63, 800)
    of_splits = {"few": rng.choice(hashes[:7], 400), "one": np.full(211, 5), "train": hashes}
    plans = {"few": SplitPlan(400, 17), "one": SplitPlan(211, 8), "train": SplitPlan(800, 9)}
    rows = [
        # Ids in which the order of UTF-8, which is Spark's, is not that of UTF-16 or of numbers.
        (split, int(h), f"s{k % 2}", chr(0x10000 + k) if k % 3 else f"\uff5e{k}")
        for split, listed in of_splits.items()
        for k, h in enumerate(listed)
    ]
    frame = spark.createDataFrame(rows, "split string, shuffle bigint, source string, image_id string").repartition(5)
    counts: dict[str, dict[int, int]] = {split: {} for split in plans}
    for split, at, n in frame.groupBy("split", bucket().alias("bucket")).count().collect():
        counts[split][at] = n
    placed = in_files(frame, frame, plans, counts).select("split", "shard", "shard_row", "image_id")
    found = placed.withColumn("partition", F.spark_partition_id()).collect()
    expected = []
    for split, plan in plans.items():
        of_split = sorted((row for row in rows if row[0] == split), key=lambda row: (row[1], row[2], row[3].encode()))
        places = [(shard, k) for shard, n in enumerate(plan.rows_of_files) for k in range(n)]
        first = len({row[4] for row in expected})
        expected += [(split, *at, row[3], first + at[0]) for at, row in zip(places, of_split, strict=True)]
    assert [tuple(row) for row in found] == expected
