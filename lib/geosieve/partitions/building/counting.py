"""Spark queries on the images from which partitions are built: counts per cell, mean positions, a sample.

Results do not depend on the number of tasks or the order of rows, because only integers are counted and summed.
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

# Levels between two counts. Only cells with more than `maximum` images are counted again, so the driver receives at
# most 4^_STEP / maximum cells per image, and usually far fewer.
_STEP = 4
_FIRST = 10  # there are 6.3 million S2 cells of this level: 100 MB on the driver if all contain images
_UNIT = 2.0**32  # unit vectors are summed in units of 1.5 mm, so that 2^31 images in one region fit into an int64


def cell_histogram(
    points: DataFrame, leaves: Callable[[F8, F8], I8], start: int, depth: int, maximum: int
) -> Histogram:
    """Return a histogram of the images that is deep enough for `refine` with these parameters.

    points: one row per image, with columns lat and lon, in degrees.
    leaves: function that returns the leaf of each point; negative leaves are ignored.
    start, depth: first and last level.
    maximum: cells with more images are counted again at a deeper level.

    Each pass over the points goes a few levels deeper and counts only points in cells that are still too full.
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
    """Return the number of images in each cell of one level: columns cell (its first leaf) and images.

    within: level and sorted first leaves of the cells to which the count is restricted; None for all.
    """
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
    """Return, for each of n partitions, a frame with the image count and mean direction of its regions.

    points: one row per image, with columns lat and lon, in degrees.
    label: function that returns the regions of points in each of the n partitions.

    Each frame has one row per region with images, in the index `region`, which includes OUTSIDE. Columns: images, and
    x, y, z, the sum of the unit vectors in units of 2^-32. There is one pass over the points.
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
                # Integer sums below 2^53 are exact in float64. A chunk has fewer than 2^21 rows, so they stay below.
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
    """Return the number of different positions of images in each of a few regions. One pass over the points.

    Regions without images are missing in the result.
    """
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
    """Return the bounding box of the points and their number: south, west, north, east in degrees, and images."""
    row = points.agg(
        F.min("lat").alias("south"),
        F.min("lon").alias("west"),
        F.max("lat").alias("north"),
        F.max("lon").alias("east"),
        F.count("*").alias("images"),
    ).first()
    return row.asDict() if row else {}


def sample(points: DataFrame, n: int, seed: int) -> tuple[F8, F8]:
    """Return lat and lon, in degrees, of a random sample of n images (or all, if there are fewer).

    points: one row per image, with columns lat, lon, source and image_id.

    The sample consists of the images whose source and id have the smallest hashes (xxHash64 with the seed), in the
    order of the hashes. It is therefore the same in every run.
    """
    key = F.xxhash64(F.lit(seed), F.col("source"), F.col("image_id"))
    taken = points.select("lat", "lon", "source", "image_id", key.alias("key"))
    found = taken.orderBy("key", "source", "image_id").limit(n).select("lat", "lon").toPandas()
    return found["lat"].to_numpy(), found["lon"].to_numpy()
