"""Groups of near duplicates: images whose perceptual hashes differ by few bits, directly or by a chain.

Hashes that differ by at most k bits are equal in at least one of k + 1 bands of their bits. Spark brings together the
hashes that are equal in a band, so each hash is copied k + 1 times. A task links its hashes (`hamming`) and returns a
tree of each component that it finds, not all pairs. The driver joins the trees of all tasks.

A task holds the hashes that are equal in one band, at about 40 bytes each: of uniform hashes, 1 in 128 for k = 8 and 1
in 4,096 for k = 4; of real ones some times more. The driver holds two hashes per link. A hash without a near duplicate
has no link, and one with near duplicates has mostly one, at most k + 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise

import numpy as np
import pandas as pd
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from geosieve.splits.config import PERCEPTUAL_HASH as HASH
from geosieve.splits.groups import Ints, component_roots
from geosieve.splits.hamming import borders, link_equal

_BITS = 64


def hash_roots(hashes: DataFrame, bits: int, tasks: int) -> DataFrame:
    """The root of each hash that has a near duplicate: another hash that differs from it by at most `bits` bits.

    `hashes` has the column `perceptual_hash` (bigint, the 64 bits of a hash; may be null, and values may repeat).
    Returns the columns `perceptual_hash` and `root`: the smallest hash (as a signed number) of those that are linked
    with it, directly or by a chain. Hashes without a near duplicate are not in it. The result is exact, and depends
    neither on the order of rows nor on `tasks`, the number of Spark tasks that compare.
    """
    cuts = borders(_BITS, bits + 1)
    values = [
        F.struct(
            F.lit(band).alias("band"), F.shiftrightunsigned(HASH, low).bitwiseAND(_mask(high - low)).alias("value")
        )
        for band, (low, high) in enumerate(pairwise(cuts))
    ]
    distinct = hashes.select(HASH).where(F.col(HASH).isNotNull()).distinct()
    copies = distinct.select(HASH, F.inline(F.array(*values))).repartition(tasks, "band", "value").drop("value")

    def links(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        held: list[list[Ints]] = [[] for _ in range(bits + 1)]
        for batch in batches:
            band, hashed = batch["band"].to_numpy(), batch[HASH].to_numpy()
            for number, copied in enumerate(held):
                copied.append(hashed[band == number])
        for band, copied in enumerate(held):
            nodes, roots = _linked_in_band(np.concatenate([*copied, np.empty(0, np.int64)]), band, bits)
            yield pa.RecordBatch.from_arrays([pa.array(nodes), pa.array(roots)], [HASH, "root"])

    found = copies.mapInArrow(links, f"{HASH} bigint, root bigint").distinct().toPandas()
    if not found.empty:
        found = pd.DataFrame(dict(zip(found.columns, component_roots(*found.to_numpy().T), strict=True)))
    return hashes.sparkSession.createDataFrame(found, f"{HASH} bigint, root bigint")


def with_near_duplicates(images: DataFrame, bits: int, tasks: int) -> DataFrame:
    """Replace `perceptual_hash` by the root of its component, so that near duplicates have the same value.

    Adds the column `duplicate_of` (bigint): the same value for images that have a near duplicate, another image with
    the same root; null for the others. `bits` and `tasks` as in `hash_roots`.
    """
    roots = hash_roots(images, bits, tasks)
    rows = images.join(roots, HASH, "left").withColumn(HASH, F.coalesce("root", HASH)).drop("root")
    several = rows.groupBy(HASH).count().where(f"count > 1 AND {HASH} IS NOT NULL")
    several = several.select(HASH, F.col(HASH).alias("duplicate_of"))
    return rows.join(several, HASH, "left")


def _mask(width: int) -> int:
    """The lowest `width` bits as a signed number of 64 bits."""
    return (1 << width) - 1 if width < _BITS else -1


def _linked_in_band(hashes: Ints, band: int, bits: int) -> tuple[Ints, Ints]:
    """Hashes (n,) that are linked with a smaller one that is equal in the band, and the smallest of these."""
    hashes = np.sort(hashes)
    index = np.arange(hashes.size)
    roots = link_equal(hashes.view(np.uint64), borders(_BITS, bits + 1), (band,), bits, index)
    return hashes[roots < index], hashes[roots[roots < index]]
