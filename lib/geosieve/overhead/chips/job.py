"""`cut_chips`: squares of strips and other rasters around positions.

1. Sedona joins cells of the Earth that contain positions with the rasters' footprints; the pixel grids decide which
   rasters have a pixel at a position (`plan`).
2. Positions are ordered by their preferred raster and, within it, by bands of rows from left to right. A task gets a
   stretch of this order, so that GDAL's cache has the blocks that neighbours share, and each is decoded once.
3. A position's rasters are tried in the order of preference: the first without an empty pixel counts, else the first
   whose empty share is within the limit.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import rasterio
from numpy.typing import NDArray
from pyspark import Broadcast
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import (
    IntegerType,
    LongType,
    StringType,
    StructField,
    StructType,
)

from geosieve.images import row_checks
from geosieve.images.coordinate_lists import INPUT_URI, find_files, open_csv, with_row_numbers
from geosieve.images.read import NO_POSITION, NO_POSITION_MESSAGE, POSITIONED, read_images
from geosieve.images.sources import CsvSource
from geosieve.job.main import Context
from geosieve.job.publishing import publishes
from geosieve.overhead.chips.config import ChipsConfig, View
from geosieve.overhead.chips.plan import (
    UTM_NORTH,
    UTM_SOUTH,
    ChipGrid,
    RasterFinder,
    cache_bytes,
    chip_grid,
    utm_zone,
)
from geosieve.overhead.chips.reading import Chip, OpenRaster, Unreadable, cut, encoded
from geosieve.overhead.chips.sources import ChipRaster, find_rasters
from geosieve.rasters.candidates import join_outlines, occupied_cells
from geosieve.rasters.sampling import gdal_environment
from geosieve.runtime.errors import InputError, redact
from geosieve.runtime.frames import on_disk
from geosieve.tables.arrow import chunks, in_small_batches
from geosieve.tables.publish import Leaf, Publication
from geosieve.tables.schemas import CHIPS, REJECTS

JOB = "cut_chips"
_PLAN_ROWS = 100_000
_CUT_ROWS = 1_024
"""Chips of a task that are tried together, raster after raster."""
_TASK_CHIPS = 2_000

_KEY = ("source", "image_id", "uri", "lat", "lon")
_OUTCOME = ("error_class", "message")
_PLACE = ("raster", "level", "band", "column")

Row = dict[str, Any]


@dataclass(frozen=True)
class _Positions:
    """`rows` with _KEY and _OUTCOME (null for a position that can be used), and what was found."""

    rows: DataFrame
    found: dict[str, Any]


def _leaves(config: ChipsConfig) -> list[Leaf]:
    return [Leaf(REJECTS, {"job": JOB, "part": config.name}), Leaf(CHIPS, {"chip_set": config.name})]


@publishes(_leaves)
def cut_chips(context: Context[ChipsConfig], publication: Publication) -> int:
    """Write `chips` and `rejects` of this run. Returns the number of positions times views; 0 in a dry run.

    InputError, with nothing committed, if there are no positions or rasters, if a catalogued raster changed or has
    pixels that are no greys, or if no chip could be cut.
    """
    config, report, spark = context.config, context.report, context.spark
    with report.stage("inputs"):
        rasters = find_rasters(spark, config.rasters)
        positions = _positions(context)
    if context.dry_run:
        told = {f"rasters of {name}": n for name, n in _numbers(rasters).items()}
        context.show_plan({**positions.found, **told}, {"positions": positions.rows})
        return 0
    with ExitStack() as kept:
        with report.stage("join"):
            rows = kept.enter_context(on_disk(positions.rows))
            finder = _finder(spark, rows, rasters)
            planned = kept.enter_context(on_disk(plan(spark, rows, finder, config.views)))
            by_class = {row.error_class: row["count"] for row in planned.groupBy("error_class").count().collect()}
            to_cut = by_class.get(None, 0)
            report.rows_in = sum(by_class.values())
        if report.rows_in == 0:
            raise InputError("there are no positions", hint="are the images, or the list, empty?")
        with report.stage("cut"):
            done = cut_planned(planned, to_cut, finder, config)
            chips = done.where("error_class IS NULL").select([column.name for column in CHIPS.columns])
            report.rows_out = publication.write(CHIPS, chips)
        with report.stage("rejects"):
            rejects = _rejects(planned, config, "join")
            if report.rows_out < to_cut:
                # Why the others have none is found out once more: to keep all pictures until then took twice as long.
                written = publication.written(CHIPS).select("source", "image_id", "view")
                named = planned.withColumns({"number": F.col("view"), "view": _name(config, "view")})
                others = named.join(written, ["source", "image_id", "view"], "left_anti")
                others = others.withColumn("view", F.col("number")).drop("number")
                refused = cut_planned(others, to_cut - report.rows_out, finder, config)
                rejects = rejects.unionByName(_rejects(refused, config, "cut"))
            publication.write(REJECTS, rejects)
            counts = publication.written(REJECTS).groupBy("error_class").count().collect()
            report.rejected = {row.error_class: row["count"] for row in counts}
        if report.rows_out == 0:
            first = publication.written(REJECTS).orderBy("id").first()
            raise InputError(
                f"no chip could be cut for {report.rows_in} positions and views: {report.rejected}",
                where=config.rasters.root,
                hint=first["message"] if first else "",
            )
        report.details["chips_of"] = {
            row.raster_source: row["count"]
            for row in publication.written(CHIPS).groupBy("raster_source").count().collect()
        }
    return report.rows_in


def _positions(context: Context[ChipsConfig]) -> _Positions:
    """The positions of images or of a list, with those that cannot be used."""
    config, spark = context.config, context.spark
    if config.images is not None:
        images = read_images(spark, config.images)
        images.tell(context.report)
        rows = images.rows.select(
            *_KEY,
            F.when(~F.expr(POSITIONED), NO_POSITION).alias("error_class"),
            F.when(~F.expr(POSITIONED), NO_POSITION_MESSAGE).alias("message"),
        )
        return _Positions(rows, images.found())
    assert config.positions is not None
    return _listed(spark, config.positions)


def _listed(spark: SparkSession, source: CsvSource) -> _Positions:
    files = find_files(spark, source.uri, "positions")
    raw = open_csv(spark, source.columns, source.delimiter, files, "positions", source.header, source.encoding)
    if source.columns.image_id is None:
        raw = with_row_numbers(raw, files)
    checked = row_checks.check_rows(raw, source.longitudes == "0..360")
    counts = [F.expr(text) for text in row_checks.COORDINATE_COUNTS]
    row_checks.refuse_other_coordinates(
        checked.groupBy(INPUT_URI).agg(*counts).collect(),
        "exchange positions.columns.lat and lon",
        "set positions.longitudes to 0..360",
    )
    settled = row_checks.refuse_repeats(checked, row_checks.repeated_ids(checked))
    rows = settled.select(F.lit(source.name).alias("source"), "image_id", F.col(INPUT_URI).alias("uri"), *_KEY[3:],
                          *_OUTCOME)  # fmt: skip
    return _Positions(rows, {f"positions of {source.name}": f"{len(files)} files, first {files[0].uri}"})


def _numbers(rasters: list[ChipRaster]) -> dict[str, int]:
    names = [raster.source for raster in rasters]
    return {name: names.count(name) for name in sorted(set(names))}


def plan(spark: SparkSession, positions: DataFrame, finder: Broadcast[RasterFinder], views: list[View]) -> DataFrame:
    """One row per position and view, with the preferred raster that has a pixel there, or why there is none.

    `positions` have _KEY and _OUTCOME. Columns added: `view` (its number), and `raster` (its number), `level`,
    `band` and `column`, by which rows that share blocks of a raster are brought together.
    """
    places = [StructField(name, LongType()) for name in _PLACE]
    schema = StructType([*positions.schema.fields, StructField("view", IntegerType()), *places])
    arrow = to_arrow_schema(schema)

    def joined(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for table in chunks(batches, _PLAN_ROWS):
            lat, lon = (table[name].to_numpy(zero_copy_only=False).astype(np.float64) for name in ("lat", "lon"))
            given = np.asarray(table["error_class"].is_null())
            with np.errstate(invalid="ignore"):
                served = (lat >= UTM_SOUTH) & (lat <= UTM_NORTH)
            at = np.flatnonzero(given & served)
            raster, band, column = (
                np.full(len(table), -1),
                np.zeros(len(table), np.int64),
                np.zeros(len(table), np.int64),
            )
            found = finder.value.find(lat[at], lon[at], np.full(at.size, -1))
            raster[at], column[at] = found.raster, found.column
            band[at] = found.row // finder.value.band_rows[found.raster]
            kept = [table[name].combine_chunks() for name in _KEY]
            outcome = _filled(table, given & ~served, given & served & (raster < 0))
            for number in range(len(views)):
                view = np.full(len(table), number, np.int32)
                level = np.where(raster < 0, 0, finder.value.levels(views[number].resolution_m)[raster])
                columns = [*kept, *outcome, *(pa.array(v) for v in (view, raster, level, band, column))]
                yield pa.RecordBatch.from_arrays(columns, schema=arrow)

    return positions.mapInArrow(joined, schema)


def _finder(spark: SparkSession, positions: DataFrame, rasters: list[ChipRaster]) -> Broadcast[RasterFinder]:
    """What finds rasters, for workers. Sedona joins the rasters' footprints with the cells that have positions."""
    good = positions.where(f"error_class IS NULL AND lat BETWEEN {UTM_SOUTH} AND {UTM_NORTH}")
    outlines = {"": {number: raster.footprint for number, raster in enumerate(rasters)}}
    index = join_outlines(spark, occupied_cells(good), outlines)[""]
    return spark.sparkContext.broadcast(RasterFinder(rasters, index))


def _filled(table: pa.Table, beyond: NDArray[np.bool_], lonely: NDArray[np.bool_]) -> list[Any]:
    """Error classes and messages with those of positions outside of UTM or of all rasters."""
    outcome = [table[name].combine_chunks() for name in _OUTCOME]
    for which, texts in (
        (beyond, ("outside_utm", f"UTM serves {-UTM_SOUTH:.0f}° south to {UTM_NORTH:.0f}° north")),
        (lonely, ("no_raster", "no raster has a pixel at this position")),
    ):
        outcome = [pc.if_else(pa.array(which), text, v) for text, v in zip(texts, outcome, strict=True)]
    return outcome


def cut_planned(planned: DataFrame, chips: int, finder: Broadcast[RasterFinder], config: ChipsConfig) -> DataFrame:
    """The chips of rows of `plan` that have a raster, or why there is none.

    Columns: those of CHIPS, and `uri`, `number` (of the view) and _OUTCOME; without a chip, most are null.
    """
    spark = planned.sparkSession
    stored = [StructField(f.name, f.dataType) for f in CHIPS.spark_schema().fields]
    added = [StructField("uri", StringType()), StructField("number", IntegerType())]
    schema = StructType([*stored, *added, *(StructField(name, StringType()) for name in _OUTCOME)])
    arrow = to_arrow_schema(schema)
    order = (*_PLACE, "source", "image_id", "view")
    tasks = max(2 * int(spark.sparkContext.defaultParallelism), -(-chips // _TASK_CHIPS))
    rows = planned.where("error_class IS NULL").select(*_KEY, "view", *_PLACE)
    ordered = rows.repartitionByRange(tasks, *_PLACE).sortWithinPartitions(*order)

    def made(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        rows = (row for batch in batches for row in batch.to_pylist())
        cache = (
            {} if "GDAL_CACHEMAX" in os.environ else {"GDAL_CACHEMAX": cache_bytes(finder.value.rasters, config.views)}
        )
        with gdal_environment(), rasterio.Env(**cache):
            yield from in_small_batches(_Cutter(finder.value, config).cut(rows), arrow, "chip")

    return ordered.mapInArrow(made, schema)


@dataclass
class _Search:
    """The search for the chip of a row: which raster is tried, and what the earlier ones gave."""

    row: Row
    raster: int
    best: int = -1  # the first raster within the limit
    least: float = 1.0
    tried: int = 0


class _Cutter:
    """Cuts the chips of a task."""

    def __init__(self, finder: RasterFinder, config: ChipsConfig) -> None:
        self._finder, self._config = finder, config
        self._open = OpenRaster()

    def cut(self, rows: Iterator[Row]) -> Iterator[Row]:
        """The outcome of each row. At most `_CUT_ROWS` rows, without pictures, are held at a time."""
        try:
            while some := list(islice(rows, _CUT_ROWS)):
                yield from self._searched([_Search(row, row["raster"]) for row in some])
        finally:
            self._open.close()

    def _searched(self, searches: list[_Search]) -> Iterator[Row]:
        """Try the rasters of all rows, round after round, until each has a chip or no raster is left."""
        earlier = []  # rows whose chip is of an earlier raster than the last; their pictures were not held
        while searches:
            again = []
            for search, following in zip(searches, self._following(searches), strict=True):
                outcome = self._tried(search, following)
                if isinstance(outcome, dict):
                    yield outcome
                elif following < 0:
                    earlier.append(search)
                else:
                    search.raster = following
                    again.append(search)
            searches = sorted(again, key=lambda search: (search.raster, search.row["view"]))
        for search in sorted(earlier, key=lambda search: search.best):
            yield self._cut(search.row, search.best)[1]()

    def _following(self, searches: list[_Search]) -> list[int]:
        """The raster of each row that comes after the one that is tried now; -1 if there is none."""
        lat, lon = (np.array([search.row[name] for search in searches]) for name in ("lat", "lon"))
        found: list[int] = self._finder.find(lat, lon, np.array([search.raster for search in searches])).raster.tolist()
        return found

    def _tried(self, search: _Search, following: int) -> Row | None:
        """The outcome of a row, or None if it is not decided or is an earlier raster's."""
        empty_share, outcome = self._cut(search.row, search.raster)
        if empty_share == 0.0:
            return outcome()
        search.tried += 1
        search.least = min(search.least, empty_share)
        if search.best < 0 and empty_share <= self._config.most_empty:
            search.best = search.raster
        if following >= 0:
            return None
        if search.best < 0:
            of = "" if search.tried == 1 else f", in the best of {search.tried} rasters"
            return _refused(search.row, "empty", f"{100 * search.least:.1f} % of its pixels are empty{of}")
        return outcome() if search.best == search.raster else None

    def _cut(self, row: Row, number: int) -> tuple[float, Callable[[], Row]]:
        """The empty share of a row's chip from a raster, and what makes its row; 0 and a refusal if it is refused."""
        raster, view = self._finder.rasters[number], self._config.views[row["view"]]
        grid = chip_grid(raster, view, row["lat"], row["lon"])
        try:
            chip = cut(self._open, raster, grid, self._config.resampling)
        except Unreadable as refused:
            return 0.0, partial(_refused, row, *refused.args)
        return chip.empty_share, partial(self._chip, row, raster, view, grid, chip)

    def _chip(self, row: Row, raster: ChipRaster, view: View, grid: ChipGrid, chip: Chip) -> Row:
        config = self._config
        return {
            **{name: row[name] for name in _KEY},
            "number": row["view"],
            "view": view.name,
            "raster_source": raster.source,
            "raster_uri": redact(raster.uri),
            "strip_id": raster.strip_id,
            "epsg": grid.epsg,
            "utm_zone": utm_zone(grid.epsg),
            "transform": dict(zip("abcdef", grid.grid.transform[:6], strict=True)),
            "width": view.size_px,
            "height": view.size_px,
            "resolution_m": view.resolution_m,
            "orientation": view.orientation,
            "empty_share": chip.empty_share,
            "captured_at": raster.captured_at,
            "format": config.format,
            "chip": encoded(chip.greys, config.format, config.quality),
        }


def _refused(row: Row, error_class: str, message: str) -> Row:
    key = {name: row[name] for name in _KEY}
    return {**key, "number": row["view"], "error_class": error_class, "message": redact(message)}


def _name(config: ChipsConfig, number: str) -> Column:
    """The name of a view by its number."""
    return F.element_at(F.array(*(F.lit(view.name) for view in config.views)), F.col(number) + 1)


def _rejects(rows: DataFrame, config: ChipsConfig, stage: str) -> DataFrame:
    """Rows of `rejects` for rows of `plan` or `cut_planned` without a chip."""
    name = _name(config, "view" if stage == "join" else "number")
    message = F.concat(F.lit("view "), name, F.lit(": "), F.coalesce("message", F.lit("")))
    return rows.where("error_class IS NOT NULL").select(
        F.col("image_id").alias("id"),
        "uri",
        F.lit(stage).alias("stage"),
        "error_class",
        F.substring(message, 1, 500).alias("message"),
    )
