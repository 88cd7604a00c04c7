"""Spatial index: the raster files and polygons that may cover a point, found per cell of a 0.25° grid.

Sedona joins the outlines of files and polygons with the grid cells that contain points. There are about a million cells
at most, however many points there are. The join only selects candidates: the pixel grid or the polygon itself makes the
exact decision later, so that no point is duplicated or lost at an edge.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import shapely
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from geosieve.geo.arrays import F8, I8
from geosieve.geo.ranges import ranges

_PER_DEGREE = 4  # cells of 0.25°: a power of two, so that Spark and numpy agree to the last bit
_ROWS, _COLUMNS = 180 * _PER_DEGREE, 360 * _PER_DEGREE
_SIDE = 8  # of a block, in cells: 2°
# Cells are widened by this margin before the join: a rounding error or a datum shift must not hide a candidate.
_MARGIN_DEG = 0.02


def cell_keys(lat: F8, lon: F8) -> I8:
    """Key of the cell that contains each point: row · 1440 + column, counted from the south-west corner.

    lat, lon: WGS-84 degrees of the same shape, lon in [-180, 180].
    """
    row = np.minimum(np.floor((lat + 90.0) * _PER_DEGREE), _ROWS - 1)
    column = np.mod(np.floor((lon + 180.0) * _PER_DEGREE), _COLUMNS)
    return np.asarray(row * _COLUMNS + column, dtype=np.int64)


def occupied_cells(points: DataFrame) -> I8:
    """Sorted keys of the cells that contain points. `points` has the columns lat and lon, in WGS-84 degrees."""
    row = F.least(F.floor((F.col("lat") + 90.0) * _PER_DEGREE), F.lit(_ROWS - 1))
    column = F.floor((F.col("lon") + 180.0) * _PER_DEGREE) % _COLUMNS
    keys = points.select((row * _COLUMNS + column).cast("bigint").alias("cell")).distinct().toPandas()["cell"]
    return np.sort(keys.to_numpy(dtype=np.int64))


def every_cell() -> I8:
    """Keys of all cells of the grid, sorted."""
    return np.arange(_ROWS * _COLUMNS)


@dataclass(frozen=True)
class CandidateIndex:
    """The candidate items (numbers of files or polygons) of each cell.

    `keys` are the sorted cell keys; the items of cell `keys[i]` are `items[offsets[i]:offsets[i + 1]]`.
    """

    keys: I8
    offsets: I8
    items: I8

    @classmethod
    def from_pairs(cls, cell: I8, item: I8) -> CandidateIndex:
        """Build the index from (cell, item) pairs. Repeated pairs count once."""
        items = int(item.max(initial=0)) + 1  # one number for a pair: sorting rows of two takes ten times as long
        pairs = np.unique(cell * items + item)
        keys, starts = np.unique(pairs // items, return_index=True)
        return cls(keys, np.r_[starts, pairs.size].astype(np.int64), pairs % items)

    def candidates(self, lat: F8, lon: F8) -> Candidates:
        """The candidate items of each point. lat, lon: WGS-84 degrees, shape (n,)."""
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
    """Pairs of an item and the index of a point near it, sorted by item."""

    item: I8
    point: I8

    def points_of(self, item: int) -> I8:
        """Indices of the points near one item."""
        first, last = np.searchsorted(self.item, [item, item + 1])
        return self.point[first:last]

    def items(self) -> Iterator[int]:
        """The items that have at least one point near them, ascending."""
        return iter(np.unique(self.item).tolist())


def join_outlines(spark: SparkSession, cells: I8, outlines: dict[str, dict[int, bytes]]) -> dict[str, CandidateIndex]:
    """Return, for each partition name, the index of its outlines over the cells.

    `cells` are cell keys. `outlines` maps each partition name to its outlines by item number, as WKB with (lon, lat)
    coordinates in degrees.

    One Sedona join, or two where cells are dense, serve all partitions. The outlines are broadcast, because Sedona does
    not know how few they are and would shuffle both sides. There may be 100,000 files, so outlines and cells go to
    Spark as pandas frames, by Arrow.
    """
    shapes = [shape for of_partition in outlines.values() for shape in of_partition.values()]
    if not shapes or cells.size == 0:
        return dict.fromkeys(outlines, NOTHING)
    cell, thing = _near(spark, cells, shapes)
    indices, first = {}, 0
    for name, numbered in outlines.items():
        mine = (thing >= first) & (thing < first + len(numbered))
        items = np.fromiter(numbered, dtype=np.int64, count=len(numbered))
        indices[name] = CandidateIndex.from_pairs(cell[mine], items[thing[mine] - first])
        first += len(numbered)
    return indices


def _near(spark: SparkSession, cells: I8, shapes: list[bytes]) -> tuple[I8, I8]:
    """Pairs of a cell and the index of a shape (WKB) that is near it."""
    blocks, block_of_cell = np.unique(_block(cells), return_inverse=True)
    if blocks.size * _SIDE > cells.size:
        return _join(spark, cells, 1.0 / _PER_DEGREE, shapes)
    # Where cells are dense, most blocks of them are crossed by no border: their cells are near what the block is near.
    lines = shapely.boundary(shapely.from_wkb(shapes))
    block, thing = _join(spark, blocks, _SIDE / _PER_DEGREE, [*shapes, *shapely.to_wkb(lines)])
    crossed = np.isin(blocks, block[thing >= len(shapes)])
    cell, of_crossed = _join(spark, cells[crossed[block_of_cell]], 1.0 / _PER_DEGREE, shapes)
    whole = ~np.isin(block, blocks[crossed])
    sorted_cells, at = cells[np.argsort(block_of_cell, kind="stable")], np.searchsorted(blocks, block[whole])
    counts = np.bincount(block_of_cell, minlength=blocks.size)
    inside = sorted_cells[ranges((np.cumsum(counts) - counts)[at], counts[at])]
    return np.concatenate([cell, inside]), np.concatenate([of_crossed, np.repeat(thing[whole], counts[at])])


def _block(cells: I8) -> I8:
    """Key of the block of each cell, as `cell_keys` numbers cells."""
    return np.asarray(cells // _COLUMNS // _SIDE * (_COLUMNS // _SIDE) + cells % _COLUMNS // _SIDE, dtype=np.int64)


def _join(spark: SparkSession, squares: I8, degrees: float, shapes: list[bytes]) -> tuple[I8, I8]:
    """Pairs of a square and the index of a shape that it intersects. `squares` are keys of a grid of `degrees`."""
    things = spark.createDataFrame(
        pd.DataFrame({"thing": np.arange(len(shapes)), "wkb": shapes}), "thing bigint, wkb binary"
    ).selectExpr("thing", "ST_GeomFromWKB(wkb) AS shape")
    places = spark.createDataFrame(
        pd.DataFrame(dict(zip(("square", "west", "south", "east", "north"), _extents(squares, degrees), strict=True))),
        "square bigint, west double, south double, east double, north double",
    ).selectExpr("square", "ST_PolygonFromEnvelope(west, south, east, north) AS box")
    pairs = places.join(F.broadcast(things), F.expr("ST_Intersects(box, shape)")).select("square", "thing").toPandas()
    return pairs["square"].to_numpy(np.int64), pairs["thing"].to_numpy(np.int64)


def _extents(squares: I8, degrees: float) -> tuple[I8, F8, F8, F8, F8]:
    """Key, west, south, east and north of each square of a grid, widened by the margin.

    A square beside ±180 occurs a second time on the other side of the map, shifted by 360°.
    """
    columns = round(360.0 / degrees)
    west = squares % columns * degrees - 180.0
    first, last = np.flatnonzero(west == -180.0), np.flatnonzero(west == 180.0 - degrees)
    which = np.concatenate([np.arange(squares.size), first, last])
    shift = np.repeat([0.0, 360.0, -360.0], [squares.size, first.size, last.size])
    low, bottom = west[which] + shift, squares[which] // columns * degrees - 90.0
    size = degrees + _MARGIN_DEG
    return squares[which], low - _MARGIN_DEG, bottom - _MARGIN_DEG, low + size, bottom + size
