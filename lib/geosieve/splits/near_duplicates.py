"""Groups of near duplicates: images whose perceptual hashes differ by few bits, directly or by a chain.

`hamming` says which hashes must be compared: those that are equal in c of k + c blocks of their bits. Spark brings
together the hashes that are equal in the first of these c blocks, which is one of the first k + 1. So each hash is
copied k + 1 times. A task links its hashes and returns a tree of each component that it finds, not all pairs. The
driver joins the trees of all tasks.

A task holds the hashes that are equal in one block, at about 40 bytes each. Of 100 million uniform hashes these are 1
in 1,024 for k = 4 and 1 in 32 for k = 8; bits of real ones are unequal, so a task may hold some times more. The driver
holds two hashes per link. A hash without a near duplicate has no link. One with near duplicates mostly has one, at most
k + 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import combinations

import numpy as np
import pandas as pd
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from geosieve.splits.config import PERCEPTUAL_HASH as HASH
from geosieve.splits.groups import Ints, component_roots
from geosieve.splits.hamming import blocks_in_key, borders, linked_by
from geosieve.tables.arrow import tasks_for

_BITS = 64


def hash_roots(hashes: DataFrame, bits: int, n: int) -> DataFrame:
    """The root of each hash that has a near duplicate: another hash that differs from it by at most `bits` bits.

    `hashes` has the column `perceptual_hash` (bigint, the 64 bits of a hash; may be null, and values may repeat). `n`,
    about their number, decides how the work is divided, not the result.
    Returns the columns `perceptual_hash` and `root`: the smallest hash (as a signed number) of those that are linked
    with it, directly or by a chain. Hashes without a near duplicate are not in it. The result is exact.
    """
    blocks = max(1, blocks_in_key(n, _BITS, bits))
    cuts, keys = borders(_BITS, bits + blocks), list(combinations(range(bits + blocks), blocks))
    firsts = [F.struct(F.lit(block).alias("block"), _value(cuts[block], cuts[block + 1])) for block in range(bits + 1)]
    distinct = hashes.select(HASH).where(F.col(HASH).isNotNull()).distinct()
    tasks = tasks_for(hashes.sparkSession, n * (bits + 1))
    copies = distinct.select(HASH, F.inline(F.array(*firsts))).repartition(tasks, "block", "value").drop("value")

    def links(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        held: list[list[Ints]] = [[] for _ in range(bits + 1)]
        for batch in batches:
            block, copied = batch["block"].to_numpy(), batch[HASH].to_numpy()
            for first, kept in enumerate(held):
                kept.append(copied[block == first])
        for first, kept in enumerate(held):
            numbers = np.sort(np.concatenate([np.empty(0, np.int64), *kept]))
            roots = linked_by((key for key in keys if key[0] == first), numbers.view(np.uint64), cuts, bits)
            linked = roots < np.arange(roots.size)
            pair = [pa.array(numbers[linked]), pa.array(numbers[roots[linked]])]
            yield pa.RecordBatch.from_arrays(pair, [HASH, "root"])

    found = copies.mapInArrow(links, f"{HASH} bigint, root bigint").distinct().toPandas()
    if not found.empty:
        found = pd.DataFrame(dict(zip(found.columns, component_roots(*found.to_numpy().T), strict=True)))
    return hashes.sparkSession.createDataFrame(found, f"{HASH} bigint, root bigint")


def with_near_duplicates(images: DataFrame, bits: int, n: int) -> DataFrame:
    """Replace `perceptual_hash` by the root of its component, so that near duplicates have the same value.

    Adds the column `duplicate_of` (bigint): the same value for images that have a near duplicate, another image with
    the same root; null for the others. `bits` and `n` as in `hash_roots`.
    """
    roots = hash_roots(images, bits, n)
    rows = images.join(roots, HASH, "left").withColumn(HASH, F.coalesce("root", HASH)).drop("root")
    several = rows.groupBy(HASH).count().where(f"count > 1 AND {HASH} IS NOT NULL")
    several = several.select(HASH, F.col(HASH).alias("duplicate_of"))
    return rows.join(several, HASH, "left")


def _value(low: int, high: int) -> Column:
    """The bits from `low` to `high` of the hash."""
    mask = (1 << high - low) - 1 if high - low < _BITS else -1
    return F.shiftrightunsigned(HASH, low).bitwiseAND(mask).alias("value")
