"""Which files and polygons can matter to a point: decided once for each small cell of the Earth that holds points.

Sedona joins the outlines of files and polygons with the cells; there are at most a million cells however many points
there are, no point is multiplied or lost on an edge, and the exact decision is left to the pixel grid or the polygon.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from geosieve.geo.arrays import F8, I8
from geosieve.geo.ranges import ranges

_PER_DEGREE = 4  # cells of 0.25°: a power of two, so that Spark and numpy agree to the last bit
_ROWS, _COLUMNS = 180 * _PER_DEGREE, 360 * _PER_DEGREE
# Cells are widened by this before they are joined: what a rounding error or a datum shift moves must not be missed.
_MARGIN_DEG = 0.02


def cell_keys(lat: F8, lon: F8) -> I8:
    """The cell of each point, as row·1440 + column from the south-west. WGS-84 degrees, lon in [-180, 180]."""
    row = np.minimum(np.floor((lat + 90.0) * _PER_DEGREE), _ROWS - 1)
    column = np.mod(np.floor((lon + 180.0) * _PER_DEGREE), _COLUMNS)
    return np.asarray(row * _COLUMNS + column, dtype=np.int64)


def occupied_cells(points: DataFrame) -> I8:
    """Keys of the cells that hold points (columns lat, lon), sorted."""
    row = F.least(F.floor((F.col("lat") + 90.0) * _PER_DEGREE), F.lit(_ROWS - 1))
    column = F.floor((F.col("lon") + 180.0) * _PER_DEGREE) % _COLUMNS
    keys = points.select((row * _COLUMNS + column).cast("bigint").alias("cell")).distinct().toPandas()["cell"]
    return np.sort(keys.to_numpy(dtype=np.int64))


def every_cell() -> I8:
    """Keys of all cells of the Earth."""
    return np.arange(_ROWS * _COLUMNS)


@dataclass(frozen=True)
class CandidateIndex:
    """For each cell the numbers of the things near it: sorted keys, and `items[offsets[i]:offsets[i + 1]]`."""

    keys: I8
    offsets: I8
    items: I8

    @classmethod
    def from_pairs(cls, cell: I8, item: I8) -> CandidateIndex:
        """Index of (cell, item) pairs; repeated pairs count once."""
        pairs = np.unique(np.column_stack([cell, item]), axis=0) if cell.size else np.empty((0, 2), np.int64)
        keys, starts = np.unique(pairs[:, 0], return_index=True)
        return cls(keys, np.r_[starts, len(pairs)].astype(np.int64), pairs[:, 1].copy())

    def candidates(self, lat: F8, lon: F8) -> Candidates:
        """The things near each of these points."""
        if self.keys.size == 0:
            return Candidates(np.empty(0, np.int64), np.empty(0, np.int64))
        cell = cell_keys(lat, lon)
        at = np.minimum(np.searchsorted(self.keys, cell), self.keys.size - 1)
        counts = np.where(self.keys[at] == cell, self.offsets[at + 1] - self.offsets[at], 0)
        point = np.repeat(np.arange(lat.size), counts)
        item = self.items[ranges(self.offsets[at], counts)]
        order = np.argsort(item, kind="stable")
        return Candidates(item[order], point[order])


NOTHING = CandidateIndex.from_pairs(np.empty(0, np.int64), np.empty(0, np.int64))


@dataclass(frozen=True)
class Candidates:
    """Pairs (item, index of a point near it), sorted by item."""

    item: I8
    point: I8

    def points_of(self, item: int) -> I8:
        """Indices of the points near one file or polygon."""
        first, last = np.searchsorted(self.item, [item, item + 1])
        return self.point[first:last]

    def items(self) -> Iterator[int]:
        """The items that have a point near them, ascending."""
        return iter(np.unique(self.item).tolist())


def join_outlines(spark: SparkSession, cells: I8, outlines: dict[str, dict[int, bytes]]) -> dict[str, CandidateIndex]:
    """For each partition's name the index of its outlines (WKB, lon-lat) over the cells.

    One Sedona join for all partitions; the outlines are broadcast, because Sedona cannot know how few they are and
    would shuffle both sides. Outlines and cells go to Spark from pandas, by Arrow: there may be 100,000 files.
    """
    wkb = [shape for shapes in outlines.values() for shape in shapes.values()]
    if not wkb or cells.size == 0:
        return dict.fromkeys(outlines, NOTHING)
    things = spark.createDataFrame(
        pd.DataFrame({"thing": np.arange(len(wkb)), "wkb": wkb}), "thing bigint, wkb binary"
    ).selectExpr("thing", "ST_GeomFromWKB(wkb) AS outline")
    places = spark.createDataFrame(
        pd.DataFrame(dict(zip(("cell", "west", "south", "east", "north"), _extents(cells), strict=True))),
        "cell bigint, west double, south double, east double, north double",
    ).selectExpr("cell", "ST_PolygonFromEnvelope(west, south, east, north) AS box")
    pairs = places.join(F.broadcast(things), F.expr("ST_Intersects(box, outline)")).select("cell", "thing").toPandas()
    cell, thing = pairs["cell"].to_numpy(np.int64), pairs["thing"].to_numpy(np.int64)
    indices, first = {}, 0
    for name, shapes in outlines.items():
        mine = (thing >= first) & (thing < first + len(shapes))
        items = np.fromiter(shapes, dtype=np.int64, count=len(shapes))
        indices[name] = CandidateIndex.from_pairs(cell[mine], items[thing[mine] - first])
        first += len(shapes)
    return indices


def _extents(cells: I8) -> tuple[I8, F8, F8, F8, F8]:
    """Cells with west, south, east and north, widened; one beside ±180 stands there again, on the other side."""
    west = cells % _COLUMNS / _PER_DEGREE - 180.0
    first, last = np.flatnonzero(west == -180.0), np.flatnonzero(west == 180.0 - 1.0 / _PER_DEGREE)
    which = np.concatenate([np.arange(cells.size), first, last])
    shift = np.repeat([0.0, 360.0, -360.0], [cells.size, first.size, last.size])
    low, bottom = west[which] + shift, cells[which] // _COLUMNS / _PER_DEGREE - 90.0
    size = 1.0 / _PER_DEGREE + _MARGIN_DEG
    return cells[which], low - _MARGIN_DEG, bottom - _MARGIN_DEG, low + size, bottom + size
