"""Job `report_pairs`: one self-contained page about a set of pairs, to look at in a browser.

The driver holds what the page holds: sums, cells of the maps, and the sample.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from math import ceil, cos, log10, radians
from typing import Any

import numpy as np
import pyarrow as pa
import simplejpeg
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import BinaryType, IntegerType, LongType, StructField, StructType
from pyspark.sql.window import Window

from geosieve.geo import s2
from geosieve.images.headers import Refusal
from geosieve.images.isolation import decoder
from geosieve.job.main import Context
from geosieve.overhead.pairs.build import JOB as BUILDER
from geosieve.overhead.pairs.read import CommittedPairs, read_pairs
from geosieve.reporting.pairs_config import ReportPairsConfig
from geosieve.reporting.pairs_page import AreaMap, PairsPage, Sample, render
from geosieve.reporting.shown import cut
from geosieve.runtime.files import Files
from geosieve.runtime.frames import arrow_batches, on_disk, rows_with_files
from geosieve.runtime.output import check_output_file
from geosieve.tables.arrow import chunks, in_small_batches
from geosieve.tables.read import committed_runs, find_runs, read_runs
from geosieve.tables.schemas import HARVESTED_PHOTOS, IMAGE_KEY, PAIRS, REJECTS, SPLIT_RECEIPT

JOB = "report_pairs"
_LARGE = 20_000_000
"""Bytes of a page that is told to be large."""
_ROWS = 100
"""Of a table that data decide the length of, at most."""
_CELLS = 40
"""Of a map, across."""
_FINEST_DEG = 0.001


def report_pairs(context: Context[ReportPairsConfig]) -> None:
    """Write the page.

    InputError if there is no such set of pairs or run. ConfigError if the output cannot be written.
    """
    config, report, spark = context.config, context.report, context.spark
    files = Files(spark)
    with report.stage("inputs"):
        pairs = read_pairs(spark, config.pairs)
        rows = pairs.rows()
    if context.dry_run:
        context.show_plan({"pairs": f"{pairs.run.rows} rows in {pairs.run.uri}"}, {"pairs": rows.drop("photo", "chip")})
        return
    check_output_file(files, config.output)
    columns = (*IMAGE_KEY, "split", "area", "lat", "lon", "captured_at", "author", "licence")
    with on_disk(_with_places(rows.select(*columns), config.place_level)) as facts:
        with report.stage("count"):
            report.rows_in = pairs.run.rows
            counts = _counts(facts)
            areas, splits, licences = (_by(facts, name) for name in ("area", "split", "licence"))
            authors = _authors(facts)
            places = _places(facts, config)
        with report.stage("maps"):
            maps = _maps(facts, [row["name"] for row in areas[: config.areas]])
    with report.stage("samples"), rows_with_files(spark), arrow_batches(spark, 16):
        samples = _samples(pairs, config) if config.samples else []
    with report.stage("left_out"):
        refused, before = _left_out(pairs)
    page = PairsPage(
        title=config.title or f"Photos and the ground around them: “{config.pairs.name}”",
        note=config.note,
        name=config.pairs.name,
        run=pairs.run.run_id,
        made_at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        images=int(pairs.report["rows_in"]),
        licences_allowed=pairs.config.licences,
        place_level=config.place_level,
        least_authors=config.least_authors,
        counts=counts,
        areas=areas,
        splits=splits if pairs.config.splits is not None else [],
        licences=licences,
        authors=authors,
        places=places,
        maps=maps,
        samples=samples,
        samples_asked=config.samples,
        refused=refused,
        before=before,
        warnings=[str(warning) for warning in pairs.report.get("warnings", ())],
    )
    with report.stage("write"):
        text = render(page)
        size = len(text.encode())
        if size > _LARGE:
            report.warn(f"the page has {size / 1e6:.0f} MB, which browsers take long to open: fewer or smaller samples")
        files.write_text(config.output, text)
    report.rows_out = len(samples)
    report.outputs = [config.output]
    report.details |= {"bytes": size, "areas": counts["areas"], "authors": counts["authors"]}


def _with_places(rows: DataFrame, level: int) -> DataFrame:
    def add(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for chunk in chunks(batches):
            cells = s2.cell_ids(chunk["lat"].to_numpy(), chunk["lon"].to_numpy(), level)
            yield from chunk.append_column("place", pa.array(cells)).to_batches()

    return rows.mapInArrow(add, StructType([*rows.schema.fields, StructField("place", LongType())]))


def _figures() -> list[Column]:
    return [
        F.count("*").alias("pairs"),
        F.count_distinct("author").alias("authors"),
        F.count_distinct("place").alias("places"),
        F.year(F.min("captured_at")).alias("first"),
        F.year(F.max("captured_at")).alias("last"),
    ]


def _counts(facts: DataFrame) -> dict[str, Any]:
    more = [
        F.count_distinct("area").alias("areas"),
        F.count_if(F.col("author").isNull()).alias("anonymous"),
        F.count_if(F.col("captured_at").isNull()).alias("undated"),
    ]
    (row,) = facts.agg(*_figures(), *more).collect()
    return dict(row.asDict())


def _by(facts: DataFrame, name: str) -> list[dict[str, Any]]:
    """Figures by the values of a column, the most frequent first; `name` is None for null."""
    grouped = facts.withColumn("name", cut(name)).groupBy("name").agg(*_figures())
    return [row.asDict() for row in grouped.orderBy(F.desc("pairs"), "name").limit(_ROWS).collect()]


def _authors(facts: DataFrame) -> dict[str, Any]:
    """How many authors have how many pairs, and the pairs of the ten with most; no names."""
    each = facts.where("author IS NOT NULL").groupBy("author").agg(F.count("*").alias("n"))
    (most,) = each.orderBy(F.desc("n")).limit(10).agg(F.coalesce(F.sum("n"), F.lit(0)).alias("n")).collect()
    # The powers of ten that bound the groups: 1, 2-10, 11-100, …
    group = F.ceil(F.log10("n")).cast("int").alias("group")
    groups = each.groupBy(group).agg(F.count("*").alias("authors"), F.sum("n").alias("pairs")).orderBy("group")
    return {"of_ten": int(most["n"]), "groups": [tuple(row) for row in groups.collect()]}


def _places(facts: DataFrame, config: ReportPairsConfig) -> list[dict[str, Any]]:
    mean = [F.avg("lat").alias("lat"), F.degrees(F.atan2(F.avg(_sine()), F.avg(_cosine()))).alias("lon")]
    grouped = facts.groupBy("place").agg(*_figures(), *mean, F.min("area").alias("area"))
    shared = grouped.where(F.col("authors") >= config.least_authors)
    return [row.asDict() for row in shared.orderBy(F.desc("pairs"), "place").limit(config.places).collect()]


def _sine() -> Column:
    return F.sin(F.radians("lon"))


def _cosine() -> Column:
    return F.cos(F.radians("lon"))


def _maps(facts: DataFrame, names: list[str]) -> list[AreaMap]:
    """The pairs of areas by cells of a grid of each area's own."""
    found = facts.where(F.col("area").isin(names))
    middle = F.degrees(F.atan2(F.avg(_sine()), F.avg(_cosine()))).alias("middle")
    middles = {row["area"]: row["middle"] for row in found.groupBy("area").agg(middle).collect()}
    spark = facts.sparkSession
    # Longitudes relative to the area's middle, so that ±180 is no border.
    of_area = spark.createDataFrame(list(middles.items()), "area string, middle double")
    placed = found.join(F.broadcast(of_area), "area").withColumn("east", F.expr("pmod(lon - middle + 180, 360) - 180"))
    ends = [F.min("lat"), F.max("lat"), F.min("east"), F.max("east")]
    grids = [(row[0], *_grid(*row[1:])) for row in placed.groupBy("area").agg(*ends).collect()]
    grid = spark.createDataFrame(grids, "area string, south double, west double, high double, wide double")
    cell = [
        F.floor((F.col("lat") - F.col("south")) / F.col("high")),
        F.floor((F.col("east") - F.col("west")) / F.col("wide")),
    ]
    cells = placed.join(F.broadcast(grid), "area").groupBy("area", cell[0].alias("up"), cell[1].alias("right")).count()
    by_area: dict[str, list[tuple[int, int, int]]] = {}
    for row in cells.collect():
        by_area.setdefault(row["area"], []).append((int(row["up"]), int(row["right"]), int(row["count"])))
    at = {name: figures for name, *figures in grids}
    return [
        AreaMap(name, sorted(by_area[name]), at[name][0], _lon(middles[name] + at[name][1]), *at[name][2:])
        for name in names
        if name in by_area
    ]


def _lon(lon: float) -> float:
    return (lon + 180) % 360 - 180


def _grid(south: float, north: float, west: float, east: float) -> tuple[float, float, float, float]:
    """South and west end, and height and width of cells, degrees: about square, at most `_CELLS` across."""
    shrink = max(0.05, cos(radians((south + north) / 2)))
    least = max((north - south) / _CELLS, (east - west) * shrink / _CELLS, _FINEST_DEG)
    power = 10 ** ceil(log10(least) - 1e-9)
    high = next(power * part for part in (0.2, 0.5, 1) if power * part >= least * (1 - 1e-9))
    return south, west, high, high / shrink


_PICTURES = [StructField("place_in_list", IntegerType()), *(StructField(n, BinaryType()) for n in ("photo", "chip"))]


def _samples(pairs: CommittedPairs, config: ReportPairsConfig) -> list[Sample]:
    """Some pairs of every area, by a hash of their ids."""
    rows, order = pairs.rows(), [F.xxhash64(*IMAGE_KEY), *map(F.col, IMAGE_KEY)]
    turn = F.row_number().over(Window.partitionBy("area").orderBy(*order))
    file = F.substring_index(F.input_file_name(), "/", -1).alias("file")
    keys = rows.select(*IMAGE_KEY, "area", file).withColumn("turn", turn).orderBy("turn", "area").limit(config.samples)
    found = keys.orderBy("area", "turn").collect()
    listed = [(row["source"], row["image_id"], k) for k, row in enumerate(found)]
    place = pairs.spark.createDataFrame(listed, "source string, image_id string, place_in_list int")
    # Only the files that have one of them: a file's pictures are read as a whole.
    files = replace(pairs.run, files=tuple({row["file"] for row in found}))
    chosen = read_runs(pairs.spark, pairs.root, PAIRS, [files]).join(F.broadcast(place), [*IMAGE_KEY])
    told = ("area", "split", "licence", "author", "lat", "lon", "captured_at", "chip_resolution_m", "chip_width")
    known = {row["place_in_list"]: row.asDict() for row in chosen.select("place_in_list", *IMAGE_KEY, *told).collect()}
    arrow = to_arrow_schema(StructType(_PICTURES))
    side, quality, limits = config.side, config.quality, config.limits

    def made(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        with decoder(limits.seconds) as decode:

            def small(content: bytes) -> bytes | None:
                pixels = decode(content, None, limits.pixels, side)
                if isinstance(pixels, Refusal):
                    return None
                jpeg: bytes = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality, "RGB", "420")
                return jpeg

            given = (row for batch in batches for row in batch.to_pylist())
            shrunk = ({**row, "photo": small(row["photo"]), "chip": small(row["chip"])} for row in given)
            yield from in_small_batches(shrunk, arrow, "photo", "chip")

    pictures = chosen.select("place_in_list", "photo", "chip").mapInArrow(made, StructType(_PICTURES)).collect()
    credits = _credits(pairs.spark, pairs.config.images.root, place)
    return [
        Sample(known[row["place_in_list"]], credits.get(row["place_in_list"]), bytes(row["photo"]), bytes(row["chip"]))
        for row in sorted(pictures, key=lambda row: int(row["place_in_list"]))
        if row["photo"] is not None and row["chip"] is not None
    ]


def _credits(spark: SparkSession, root: str, place: DataFrame) -> dict[int, dict[str, Any]]:
    """What licences ask to be said of photos that a harvest found: author's name, title and page."""
    runs = committed_runs(spark, root, HARVESTED_PHOTOS)
    if not runs:
        return {}
    told = [cut(name).alias(name) for name in ("author_name", "title", "page")]
    rows = read_runs(spark, root, HARVESTED_PHOTOS, runs).join(F.broadcast(place), [*IMAGE_KEY])
    return {row["place_in_list"]: row.asDict() for row in rows.select("place_in_list", *told).collect()}


def _left_out(pairs: CommittedPairs) -> tuple[list[dict[str, Any]], dict[str, list[dict[str, Any]]]]:
    """Rejects of the run by class, and what earlier jobs had left out: of the chips, and of the splits."""
    spark, config, runs = pairs.spark, pairs.config, pairs.report["details"]["runs"]
    refused = _rejects(spark, pairs.root, BUILDER, config.name, [pairs.run.run_id])
    before = {"chips": _rejects(spark, config.chips.root, "cut_chips", config.chips.name, map(_run_id, runs["chips"]))}
    if config.splits is not None:
        found = find_runs(
            Files(spark),
            config.splits.root,
            SPLIT_RECEIPT,
            split_set=config.splits.name,
            run_id=_run_id(runs["splits"]),
        )
        if found:
            rows = read_runs(spark, config.splits.root, SPLIT_RECEIPT, found).where("partition IS NULL")
            columns = ("drawn", "outcome", "images")
            before["splits"] = [row.asDict() for row in rows.select(*columns).orderBy(*columns).limit(_ROWS).collect()]
    return refused, before


def _run_id(uri: str) -> str:
    return uri.rpartition("run_id=")[2]


def _rejects(spark: SparkSession, root: str, job: str, part: str, run_ids: Iterable[str]) -> list[dict[str, Any]]:
    wanted = set(run_ids)
    runs = [run for run in committed_runs(spark, root, REJECTS, job=job, part=part) if run.run_id in wanted]
    if not runs:
        return []
    rows = read_runs(spark, root, REJECTS, runs).groupBy("error_class")
    found = rows.agg(F.count("*").alias("n"), F.min(cut("message")).alias("message"))
    return [row.asDict() for row in found.orderBy(F.desc("n"), "error_class").limit(_ROWS).collect()]
