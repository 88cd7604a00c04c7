"""What a building asks of the images, by Spark: how many are in each cell, where they are on average, a sample.

Every answer is the same whatever the number of tasks and the order of rows: counts and sums are of integers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from geosieve.geo.arrays import F8, I8
from geosieve.geo.codes import OUTSIDE
from geosieve.geo.outlines import unit_vectors
from geosieve.partitions.building.cell_tree import Histogram, sizes
from geosieve.tables.arrow import chunks

# Levels between two counts. A cell that is counted anew lies in one with more than `maximum` images, so that the driver
# sees at most 4^_STEP / maximum cells an image, and of most collections far fewer.
_STEP = 4
_FIRST = 10  # the sphere has 6.3 million S2 cells of that level: 100 MB on the driver, if all hold images
_UNIT = 2.0**32  # unit vectors are summed in units of 1.5 mm; 2^31 images in one region fit an int64


def cell_histogram(
    points: DataFrame, leaves: Callable[[F8, F8], I8], start: int, depth: int, maximum: int
) -> Histogram:
    """Images (columns lat, lon) by cell, deep enough to be refined from level `start` to `maximum` images or `depth`.

    One pass over the points for each few levels, for those only whose cell is still too full.
    """
    level, full = min(max(_FIRST, start), depth), None
    done: list[pd.DataFrame] = []
    while True:
        counted = _count(points, leaves, level, full)
        over = (counted["images"] > maximum) & (level < depth)
        done.append(counted[~over])
        if not over.any():
            break
        full = (level, np.sort(counted.loc[over, "cell"].to_numpy(np.int64)))
        level = min(level + _STEP, depth)
    cells = pd.concat(done).sort_values("cell")
    return Histogram(cells["cell"].to_numpy(np.int64), cells["images"].to_numpy(np.int64))


def _count(
    points: DataFrame, leaves: Callable[[F8, F8], I8], level: int, within: tuple[int, I8] | None
) -> pd.DataFrame:
    """Images by first leaf of the cells of one level, only inside the cells `within` (their level, first leaves)."""
    shared = points.sparkSession.sparkContext.broadcast(within)

    def count(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        mask = -int(sizes(np.array(level)))
        for chunk in chunks(batches):
            leaf = leaves(chunk["lat"].to_numpy(), chunk["lon"].to_numpy())
            leaf = leaf[leaf >= 0]
            if shared.value is not None:
                above, full = shared.value
                cell = leaf & -int(sizes(np.array(above)))
                leaf = leaf[full[np.minimum(np.searchsorted(full, cell), full.size - 1)] == cell]
            cell, images = np.unique(leaf & mask, return_counts=True)
            yield pa.RecordBatch.from_arrays([pa.array(cell), pa.array(images.astype(np.int64))], ["cell", "images"])

    partial = points.select("lat", "lon").mapInArrow(count, "cell bigint, images bigint")
    return partial.groupBy("cell").agg(F.sum("images").alias("images")).toPandas()


def mean_positions(points: DataFrame, label: Callable[[F8, F8], list[I8]], n: int) -> list[pd.DataFrame]:
    """For each of n partitions its regions with images: index `region`; images, and x, y, z that point to their mean.

    `label` gives the regions of points in every partition. One pass over the points. Unit vectors are summed as
    integers, so that the sums do not depend on an order.
    """
    shared = points.sparkSession.sparkContext.broadcast(label)
    columns = ["partition", "region", "images", "x", "y", "z"]

    def add(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for chunk in chunks(batches):
            lat, lon = chunk["lat"].to_numpy(), chunk["lon"].to_numpy()
            vectors = np.rint(unit_vectors(lat, lon) * _UNIT)
            for number, region in enumerate(shared.value(lat, lon)):
                place = region - OUTSIDE
                images = np.bincount(place)
                has = np.flatnonzero(images)
                # Sums of whole numbers below 2^53 are exact in float64: a chunk has fewer than 2^21 rows.
                sums = [np.bincount(place, column)[has] for column in vectors.T]
                arrays = [np.full(has.size, number), has + OUTSIDE, images[has], *sums]
                yield pa.RecordBatch.from_arrays([pa.array(a.astype(np.int64)) for a in arrays], columns)

    partial = points.select("lat", "lon").mapInArrow(add, ", ".join(f"{column} bigint" for column in columns))
    sums = partial.groupBy("partition", "region").agg(*(F.sum(c).alias(c) for c in columns[2:])).toPandas()
    return [
        sums[sums["partition"] == number].set_index("region").drop(columns="partition").sort_index()
        for number in range(n)
    ]


def distinct_positions(points: DataFrame, assign: Callable[[F8, F8], I8], regions: I8) -> dict[int, int]:
    """How many different positions the images of each of a few regions have. One pass over the points."""
    shared = points.sparkSession.sparkContext.broadcast((assign, regions))

    def keep(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        assign, regions = shared.value
        for chunk in chunks(batches):
            region = assign(chunk["lat"].to_numpy(), chunk["lon"].to_numpy())
            kept = chunk.append_column("region", pa.array(region)).filter(pa.array(np.isin(region, regions)))
            yield from kept.to_batches()

    found = points.select("lat", "lon").mapInArrow(keep, "lat double, lon double, region bigint")
    rows = found.groupBy("region").agg(F.count_distinct("lat", "lon").alias("positions")).collect()
    return {row["region"]: row["positions"] for row in rows}


def bounds(points: DataFrame) -> dict[str, Any]:
    """South, west, north, east of the points, and how many there are."""
    row = points.agg(
        F.min("lat").alias("south"),
        F.min("lon").alias("west"),
        F.max("lat").alias("north"),
        F.max("lon").alias("east"),
        F.count("*").alias("images"),
    ).first()
    return row.asDict() if row else {}


def sample(points: DataFrame, n: int, seed: int) -> tuple[F8, F8]:
    """Positions (lat, lon) of the n images whose ids have the least hashes (xxHash64 with the seed), in that order."""
    key = F.xxhash64(F.lit(seed), F.col("source"), F.col("image_id"))
    taken = points.select("lat", "lon", "source", "image_id", key.alias("key"))
    found = taken.orderBy("key", "source", "image_id").limit(n).select("lat", "lon").toPandas()
    return found["lat"].to_numpy(), found["lon"].to_numpy()
