"""The rules that leave images out of a split.

A rule sets `reason` on live rows, those whose `reason` is null. It never adds or removes rows. There is one row per
image, with the columns source, image_id, lat and lon (degrees), `group` (null: unknown), `rank`, reason, distance_km,
and one column `label_…` per partition. Where one of several images may stay, the one of lowest `rank` does; the rank is
a hash of the image's id. The result depends only on the values, not on the order of rows or the number of tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql.types import LongType, StructField, StructType

from geosieve.geo import s2
from geosieve.geo.outlines import unit_vectors
from geosieve.geo.s2 import Ints
from geosieve.geo.sphere import Floats
from geosieve.splits.near import Cubes, level_within, nearest_km, preceded
from geosieve.tables.arrow import chunks

LIVE = "reason IS NULL"
CLASS = "class"
"""Temporary column: the class (region name) by which a split is capped or balanced."""

_ORDER = ("rank", "source", "image_id")  # source and id break ties between equal hashes
_BUCKET_BITS = 12

Judge = Callable[[pa.Table, pa.Table], Floats]
"""Function of rows and others (tables with lat, lon, rank). For each row it returns the distance (km) to the point that
it is too near to, else NaN; shape (rows,)."""


def leave_out(rows: DataFrame, condition: Column, reason: str) -> DataFrame:
    """Set `reason` on the live rows that meet the condition. A null condition counts as false."""
    fails = F.col("reason").isNull() & F.coalesce(condition, F.lit(False))
    return rows.withColumn("reason", F.when(fails, F.lit(reason)).otherwise(F.col("reason")))


def apart_by_group(rows: DataFrame, kept: DataFrame) -> DataFrame:
    """Leave out, as `same_group`, rows whose group also occurs in `kept`."""
    taken = kept.select("group").where("group IS NOT NULL").distinct().withColumn("taken", F.lit(True))
    return leave_out(rows.join(taken, "group", "left"), F.col("taken"), "same_group").drop("taken")


def apart_by_distance(rows: DataFrame, kept: DataFrame, km: float, tasks: int) -> DataFrame:
    """Leave out, as `too_near`, rows at most `km` from an image in `kept` (great circle).

    `distance_km` becomes the distance to the nearest one. The work is divided into `tasks` Spark tasks.
    """

    def judge(points: pa.Table, others: pa.Table) -> Floats:
        (lat, lon), (other_lat, other_lon) = _columns(points, "lat", "lon"), _columns(others, "lat", "lon")
        return nearest_km(lat, lon, other_lat, other_lon, km)

    return _brought_together(rows, kept, km, tasks, judge, "too_near")


def thinned(rows: DataFrame, km: float) -> DataFrame:
    """Keep the live row of lowest rank in each S2 cell, and leave out the others as `too_dense`.

    The cells are the largest in which no two points are more than `km` apart (level 30 if there are none). This bounds
    the number of pairs that `spaced` compares.
    """
    order = F.struct(*_ORDER)
    least = F.min(F.when(F.col("reason").isNull(), order)).over(Window.partitionBy("cell"))
    celled = with_cells(rows, level_within(km)).withColumn("least", least)
    return leave_out(celled, order != F.col("least"), "too_dense").drop("cell", "least")


def spaced(rows: DataFrame, km: float, tasks: int) -> DataFrame:
    """Leave out, as `too_dense`, live rows that have a live row of lower rank at most `km` away (great circle).

    The rows that stay are more than `km` apart from each other. A row is compared with all live rows, also with those
    that are left out themselves; more rows than necessary may go, but each decision is independent of the others. Pass
    rows that are `thinned`, because the work grows with the number of near pairs.
    """

    def judge(points: pa.Table, others: pa.Table) -> Floats:
        lat, lon, rank = _columns(points, "lat", "lon", "rank")
        other_lat, other_lon, other_rank = _columns(others, "lat", "lon", "rank")
        return preceded(lat, lon, rank, other_lat, other_lon, other_rank, km)

    return _brought_together(rows, rows.where(LIVE), km, tasks, judge, "too_dense")


def surplus(rows: DataFrame, keep: Mapping[str, int], reason: str) -> DataFrame:
    """Keep the `keep[class]` live rows of lowest rank in each class, and leave out the others with this reason.

    Rows of classes that are not in `keep` stay as they are. `keep[class]` must not exceed the number of live rows of
    the class. A class never has to fit into one task: a histogram of ranks finds the bucket that contains the last row
    to keep, and only the rows of this bucket are sorted.
    """
    limits = rows.sparkSession.createDataFrame(list(keep.items()), f"{CLASS} string, limit bigint")
    bucket = F.shiftright("rank", 64 - _BUCKET_BITS).alias("bucket")
    live = rows.where(LIVE).select(CLASS, *_ORDER, bucket).join(F.broadcast(limits), CLASS)
    upto = F.sum("n").over(Window.partitionBy(CLASS).orderBy("bucket"))
    last = (
        live.groupBy(CLASS, "limit", "bucket")
        .agg(F.count("*").alias("n"))
        .withColumn("upto", upto)
        .where("upto >= limit AND upto - n < limit")
        .select(CLASS, "bucket", F.expr("limit - (upto - n)").alias("wanted"))
    )
    place = F.row_number().over(Window.partitionBy(CLASS).orderBy(*_ORDER))
    cuts = (
        live.join(F.broadcast(last), [CLASS, "bucket"])
        .withColumn("place", place)
        .where("place = wanted")
        .select(CLASS, F.struct(*_ORDER).alias("cut"))
    )
    known = rows.join(F.broadcast(limits), CLASS, "left").join(F.broadcast(cuts), CLASS, "left")
    beyond = F.col("limit").isNotNull() & (F.col("cut").isNull() | (F.struct(*_ORDER) > F.col("cut")))
    return leave_out(known, beyond, reason).drop("limit", "cut")


def with_cells(rows: DataFrame, level: int) -> DataFrame:
    """Add the column `cell`: the id of the S2 cell at `level`, as int64; null for rows without a position."""
    return _with_cell(rows, lambda lat, lon: s2.cell_ids(lat, lon, level))


def _with_cell(rows: DataFrame, cells: Callable[[Floats, Floats], Ints]) -> DataFrame:
    def add(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for chunk in chunks(batches):
            lat, lon = _columns(chunk, "lat", "lon")
            known = (np.abs(lat) <= 90) & np.isfinite(lon)  # null became NaN
            column = np.zeros(lat.size, dtype=np.int64)
            column[known] = cells(lat[known], lon[known])
            yield from chunk.append_column("cell", pa.array(column, mask=~known)).to_batches()

    return rows.mapInArrow(add, StructType([*rows.schema.fields, StructField("cell", LongType())]))


def _brought_together(
    rows: DataFrame, others: DataFrame, km: float, tasks: int, judge: Judge, reason: str
) -> DataFrame:
    """Leave out the rows for which `judge` finds one of `others` that is too near.

    Rows and others are joined by cubes. A row is in the cube that contains it. Each of the others is copied to every
    cube that the ball of radius `km` around it touches. The cube of a row thus has all others within `km`.
    """
    cubes = Cubes.for_balls(km)

    def copy(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for chunk in chunks(batches):
            point, cube = cubes.touched(unit_vectors(*_columns(chunk, "lat", "lon")), km)
            yield from chunk.take(pa.array(point)).append_column("cell", pa.array(cube)).to_batches()

    def judged(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        near = None  # copies in the last cube of the previous chunk, which may continue in this one
        for chunk in chunks(batches):
            is_copy = chunk["is_copy"].to_numpy()
            copies = chunk.filter(pa.array(is_copy)).select(_POINT)
            copies = copies if near is None else pa.concat_tables([near, copies])
            yield from _judge(chunk.filter(pa.array(~is_copy)).select(names), copies, judge, reason).to_batches()
            near = copies.filter(pa.array(copies["cell"].to_numpy() == chunk["cell"].to_numpy()[-1]))

    names = rows.columns
    placed = _with_cell(rows, lambda lat, lon: cubes.of(unit_vectors(lat, lon)))
    copies = others.select("lat", "lon", "rank").mapInArrow(copy, "lat double, lon double, rank bigint, cell bigint")
    both = placed.withColumn("is_copy", F.lit(False)).unionByName(
        copies.withColumn("is_copy", F.lit(True)), allowMissingColumns=True
    )
    sorted_ = both.repartition(tasks, "cell").sortWithinPartitions("cell", F.desc("is_copy"))
    return sorted_.mapInArrow(judged, rows.schema)


_POINT = ["lat", "lon", "rank", "cell"]


def _judge(rows: pa.Table, others: pa.Table, judge: Judge, reason: str) -> pa.Table:
    """Set `reason` and `distance_km` on the live rows for which `judge` returns a distance."""
    live = np.nonzero(rows["reason"].is_null().to_numpy())[0]
    distance = np.full(rows.num_rows, np.nan)
    distance[live] = judge(rows.take(pa.array(live)), others)
    near = pa.array(~np.isnan(distance))
    for name, new in (("reason", pa.scalar(reason)), ("distance_km", pa.array(distance))):
        column = pc.if_else(near, new, rows[name])
        rows = rows.set_column(rows.column_names.index(name), name, column)
    return rows


def _columns(table: pa.Table, *names: str) -> list[NDArray[Any]]:
    return [table[name].to_numpy() for name in names]
