"""`prepare_strips`: strips become 8-bit RGB cloud-optimised GeoTIFFs in UTM, and rows of `strips`.

Parts of a strip are read by separate tasks for the histograms, and tiles of its picture are made by separate tasks, so
that a single large strip keeps every core busy. Tiles lie beside the tables until one task per strip joins them.
A file counts only when the run that wrote it is committed, since only its row in `strips` says where it is.

A shard of the publication is some strips, or one large one. If the driver dies, the next attempt goes on with the
strips of the shards that are missing.
"""

from __future__ import annotations

import json
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC
from itertools import groupby
from operator import itemgetter
from typing import Any, TypeVar

import numpy as np
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window

from geosieve.job.main import Context
from geosieve.job.publishing import publishes
from geosieve.overhead.strips.config import StripsConfig, StripSource
from geosieve.overhead.strips.levels import Search, count_digits, digits_of
from geosieve.overhead.strips.plan import Refused, Strip, describe, partner_of
from geosieve.overhead.strips.reader import opened, parts, windows
from geosieve.overhead.strips.tiles import Cog, Levels, assemble, picture, tile_bytes, tile_name, tile_windows
from geosieve.rasters.catalog import list_rasters
from geosieve.rasters.paths import gdal_path
from geosieve.rasters.sampling import gdal_environment
from geosieve.runtime import store
from geosieve.runtime.errors import InputError, redact
from geosieve.runtime.files import Files
from geosieve.tables.publish import Leaf, Publication, Shard
from geosieve.tables.schemas import REJECTS, STRIPS

JOB = "prepare_strips"
_SHARD_PIXELS = 1 << 32  # their tiles take up to 16 GiB beside the tables
_SHARD_STRIPS = 1000
_TASKS_PER_CORE = 16

Item = TypeVar("Item")
Result = TypeVar("Result")
Refusal = tuple[str, str]
"""Error class and message."""


def _leaves(config: StripsConfig) -> list[Leaf]:
    name = config.strips.name
    return [Leaf(REJECTS, {"job": JOB, "part": name}), Leaf(STRIPS, {"source": name})]


@publishes(_leaves)
def prepare_strips(context: Context[StripsConfig], publication: Publication) -> int:
    """Write the files of a source's strips, `strips` and `rejects`. Returns the number of strips; 0 in a dry run.

    InputError if there is no strip, none can be used, or the output is on a store that GDAL does not read.
    """
    config, report, spark = context.config, context.report, context.spark
    files = Files(spark)
    folder = files.absolute(config.beside_tables("strips", config.strips.name, report.run_id))
    gdal_path(folder)
    with report.stage("list"):
        listed = _listed(files, config.strips)
    if context.dry_run:
        context.show_plan({"strips": len(listed), "first": listed[0][1], "last": listed[-1][1]}, {})
        return 0
    with report.stage("describe"):
        described = _describe(spark, listed, config.strips)
    shards = _shards(described)
    work = _Work(context, folder)
    for shard in publication.shards([_told(described[k] for k in members) for members in shards]):
        members = shards[shard.index]
        work.do(shard, [listed[k] for k in members], [described[k] for k in members])
    rejects = publication.written(REJECTS)
    report.rejected = {row.error_class: row["count"] for row in rejects.groupBy("error_class").count().collect()}
    report.rows_in = publication.rows_in
    report.rows_out = report.rows_in - sum(report.rejected.values())
    if report.rows_out == 0:
        first = rejects.orderBy("uri").first()
        raise InputError(
            f"none of {len(listed)} strips can be used; the first: {first['message'] if first else ''}",
            where=config.strips.uri,
        )
    return report.rows_in


def _listed(files: Files, source: StripSource) -> list[tuple[str, str]]:
    """Id and URI of each strip. Ids are paths below the folder that all share, without the extension."""
    uris = list_rasters(files, source.uri, source.extensions)
    partners = {partner_of(uri, source) for uri in uris}
    strips = [uri for uri in uris if uri not in partners]
    folders = [uri.split("/")[:-1] for uri in strips]
    shared = 0
    while len({folder[shared] if shared < len(folder) else None for folder in folders}) == 1 and all(
        shared < len(folder) for folder in folders
    ):
        shared += 1
    ids = ["/".join(uri.split("/")[shared:]).rpartition(".")[0] or uri.split("/")[-1] for uri in strips]
    return list(zip(ids, strips, strict=True))


def _describe(spark: SparkSession, listed: list[tuple[str, str]], source: StripSource) -> list[Strip | Refusal]:
    """What is known of each strip, or why it is refused, in the order of the list."""

    def described(item: tuple[str, str]) -> Strip | Refusal:
        try:
            return describe(*item, source)
        except Refused as refused:
            return _refusal(refused)

    found = _run(spark, listed, lambda items: map(described, items))
    seen: set[str] = set()
    for k, (strip_id, _) in enumerate(listed):
        if strip_id in seen:
            found[k] = ("duplicate_id", f"another file is the strip {strip_id}, too; their extensions differ")
        seen.add(strip_id)
    return found


def _shards(described: Sequence[Strip | Refusal]) -> list[list[int]]:
    """Which strips go together: as many as make `_SHARD_PIXELS` pixels."""
    shards: list[list[int]] = [[]]
    room = _SHARD_PIXELS
    for k, strip in enumerate(described):
        pixels = strip.target.width * strip.target.height if isinstance(strip, Strip) else 0
        if shards[-1] and (pixels > room or len(shards[-1]) == _SHARD_STRIPS):
            shards.append([])
            room = _SHARD_PIXELS
        shards[-1].append(k)
        room -= pixels
    return shards


def _told(described: Iterable[Strip | Refusal]) -> str:
    """What a shard contains, for the check that a later attempt has the same inputs."""
    facts = [
        [s.strip_id, s.raster.header_sha256, s.panchromatic and s.panchromatic.header_sha256]
        if isinstance(s, Strip)
        else s[0]
        for s in described
    ]
    return json.dumps(facts)


class _Work:
    """Prepares the strips of shards."""

    def __init__(self, context: Context[StripsConfig], folder: str) -> None:
        self._spark, self._report = context.spark, context.report
        self._source, self._folder = context.config.strips, folder
        self._files = Files(context.spark)

    def do(self, shard: Shard, listed: list[tuple[str, str]], described: Sequence[Strip | Refusal]) -> None:
        """Write the files of a shard's strips and its rows, and commit it."""
        refused = {k: (s, "describe") for k, s in enumerate(described) if not isinstance(s, Strip)}
        strips = {k: s for k, s in enumerate(described) if isinstance(s, Strip)}
        every = f"{self._folder}/_tiles-{shard.index}"
        self._files.delete(every)
        # GDAL remembers files of S3 by their names, and tasks of a driver that died may still write.
        tiles = f"{every}/{uuid.uuid4().hex}"
        try:
            with self._report.stage("levels"):
                levels = self._levels(strips, refused)
            with self._report.stage("tiles"):
                empty = self._tiles(strips, levels, tiles, refused)
            with self._report.stage("assemble"):
                cogs = self._assemble(strips, empty, tiles)
        finally:
            self._files.delete(every)
        with self._report.stage("write"):
            rejects = [_reject(*listed[k], reason, stage) for k, (reason, stage) in sorted(refused.items())]
            shard.write(REJECTS, self._spark.createDataFrame(rejects, REJECTS.spark_schema()))
            rows = [_row(strips[k], cogs[k], levels[k], empty[k][0]) for k in sorted(cogs)]
            schema = STRIPS.spark_schema()
            schema = type(schema)([field for field in schema.fields if field.name != "bbox"])
            frame = self._spark.createDataFrame(rows, schema).coalesce(1)  # type: ignore[type-var]
            shard.write(STRIPS, frame.withColumn("footprint", F.expr("ST_GeomFromWKB(footprint)")))
            shard.commit(len(listed))

    def _levels(self, strips: dict[int, Strip], refused: dict[int, tuple[Refusal, str]]) -> dict[int, Levels]:
        """Black and white of each strip. Strips that cannot be read move to `refused`."""
        ranges = self._source.ranges
        if ranges is not None:
            return {k: tuple(ranges * (3 // len(ranges))) for k in strips}
        begun = {(k, band): Search(self._source.percentiles) for k in strips for band in range(3)}
        depth = 0
        while wanted := {k: s for k, s in strips.items() if digits_of(s.dtype) > depth}:
            begun |= self._deeper(wanted, {key: begun[key] for key in begun if key[0] in wanted}, depth, refused)
            for k in refused:
                strips.pop(k, None)
            depth += 1
        return {k: [tuple(begun[k, band].results(s.dtype)) for band in range(3)] for k, s in strips.items()}  # type: ignore[misc]

    def _deeper(
        self,
        strips: dict[int, Strip],
        begun: dict[tuple[int, int], Search],
        depth: int,
        refused: dict[int, tuple[Refusal, str]],
    ) -> dict[tuple[int, int], Search]:
        """Searches after one more digit."""
        shared = self._spark.sparkContext.broadcast((strips, begun))

        def counted(items: Iterable[tuple[int, tuple[int, int]]]) -> Iterator[tuple[tuple[int, int], Any]]:
            strips, begun = shared.value
            for k, of_strip in groupby(items, itemgetter(0)):
                prefixes = [begun[k, band].prefixes for band in range(3)]
                try:
                    counts = _count(strips[k], [rows for _, rows in of_strip], depth, prefixes)
                    yield from (((k, band), counts[band]) for band in range(3))
                except Refused as reason:
                    yield (k, -1), _refusal(reason)

        items = [(k, rows) for k, strip in strips.items() for rows in parts(strip.source)]
        context = self._spark.sparkContext
        tasks = min(len(items), _TASKS_PER_CORE * context.defaultParallelism)
        summed: Any = (
            context.parallelize(items, tasks)
            .mapPartitions(_in_gdal(counted))
            .reduceByKey(lambda a, b: a if isinstance(a, tuple) else a + b, min(tasks, 3 * len(strips)))
            .map(lambda pair: (pair[0], pair[1] if pair[0][1] < 0 else shared.value[1][pair[0]].narrowed(pair[1])))
        )
        found: dict[tuple[int, int], Any] = dict(summed.collect())
        shared.destroy()
        for k in strips:
            if (k, -1) in found:
                refused[k] = (found[k, -1], "levels")
            elif missing := [band for band in range(3) if found[k, band].values == 0]:
                band = strips[k].raster.bands[missing[0]]
                refused[k] = (("empty", f"band {band} has no valid pixel"), "levels")
        return {key: search for key, search in found.items() if key[0] not in refused}

    def _tiles(
        self, strips: dict[int, Strip], levels: dict[int, Levels], folder: str, refused: dict[int, tuple[Refusal, str]]
    ) -> dict[int, tuple[float, list[Window]]]:
        """Write the tiles that are not empty. Returns each strip's empty share and the windows of its tiles."""
        resampling = self._source.resampling
        shared = self._spark.sparkContext.broadcast((strips, levels))

        def made(items: Iterable[tuple[int, Window]]) -> Iterator[tuple[int, Window, int | Refusal]]:
            strips, levels = shared.value
            for k, of_strip in groupby(items, itemgetter(0)):
                window = None
                try:
                    with opened(strips[k]) as reader:
                        for _, window in of_strip:
                            pixels = picture(reader, strips[k], levels[k], window, resampling)
                            seen = int(np.count_nonzero(pixels[3]))
                            if seen:
                                store.write_file(f"{folder}/{k}/{tile_name(window)}", tile_bytes(pixels))
                            yield k, window, seen
                except Refused as reason:
                    yield k, window, _refusal(reason)

        items = [(k, window) for k, strip in strips.items() for window in tile_windows(strip)]
        seen = dict.fromkeys(strips, 0)
        windows_of: dict[int, list[Window]] = {k: [] for k in strips}
        for k, window, result in _run(self._spark, items, made):
            if isinstance(result, tuple):
                refused[k] = (result, "tiles")
            elif result:
                seen[k] += result
                windows_of[k].append(window)
        shared.destroy()
        for k in list(strips):
            if not seen[k] and k not in refused:
                refused[k] = (("empty", "none of its pixels is valid"), "tiles")
            if k in refused:
                del strips[k]
        total = {k: strip.target.width * strip.target.height for k, strip in strips.items()}
        return {k: (1.0 - seen[k] / total[k], windows_of[k]) for k in strips}

    def _assemble(
        self, strips: dict[int, Strip], tiles: dict[int, tuple[float, list[Window]]], folder: str
    ) -> dict[int, Cog]:
        compression, target = self._source.compression, self._folder

        def assembled(items: Iterable[tuple[int, Strip, list[Window]]]) -> Iterator[tuple[int, Cog]]:
            for k, strip, of_strip in items:
                uri = f"{target}/{strip.strip_id}.tif"
                yield k, assemble(strip, of_strip, f"{folder}/{k}", uri, compression)

        return dict(_run(self._spark, [(k, strip, tiles[k][1]) for k, strip in strips.items()], assembled))


def _count(strip: Strip, spans: list[tuple[int, int]], depth: int, prefixes: list[list[int]]) -> list[Any]:
    """Counts of a digit of each band in some rows of a strip. Raises as `opened` and `FileReader.read`."""
    totals: list[Any] = [0, 0, 0]
    with opened(strip) as reader:
        for first, last in spans:
            for window in windows(strip.source, first, last):
                pixels = reader.read(window)
                for band in range(3):
                    values = pixels.values[band][pixels.known[band]]
                    totals[band] = totals[band] + count_digits(values, depth, prefixes[band])
    return totals


def _run(
    spark: SparkSession, items: Sequence[Item], work: Callable[[Iterable[Item]], Iterator[Result]]
) -> list[Result]:
    """What `work` gives for the items, which Spark's tasks share, in the order of the items."""
    if not items:
        return []
    context = spark.sparkContext
    tasks = min(len(items), _TASKS_PER_CORE * context.defaultParallelism)
    return context.parallelize(items, tasks).mapPartitions(_in_gdal(work)).collect()


def _in_gdal(
    work: Callable[[Iterable[Item]], Iterator[Result]],
) -> Callable[[Iterable[Item]], Iterator[Result]]:
    """`work` with GDAL set up for reading blocks."""

    def within(items: Iterable[Item]) -> Iterator[Result]:
        with gdal_environment(), warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # tiles; strips without a place are refused
            yield from work(items)

    return within


def _refusal(refused: Refused) -> Refusal:
    return str(refused.args[0]), str(refused.args[1])


def _reject(strip_id: str, uri: str, reason: Refusal, stage: str) -> tuple[str, str, str, str, str]:
    return strip_id, redact(uri), stage, reason[0], redact(reason[1])[:500]


def _row(strip: Strip, cog: Cog, levels: Levels, empty_share: float) -> dict[str, Any]:
    target, facts = strip.target, strip.facts
    captured_at = facts.captured_at if facts else None
    if captured_at is not None and captured_at.tzinfo is None:
        captured_at = captured_at.replace(tzinfo=UTC)
    return {
        "strip_id": strip.strip_id,
        "uri": cog.uri,
        "bytes": cog.size,
        "content_sha256": cog.sha256,
        "epsg": strip.epsg,
        "utm_zone": f"{strip.epsg % 100}{'N' if strip.epsg < 32700 else 'S'}",
        "transform": dict(zip("abcdef", target.transform[:6], strict=True)),
        "width": target.width,
        "height": target.height,
        "resolution_m": target.transform.a,
        "empty_share": empty_share,
        "levels": [
            {"band": band, "black": float(black), "white": float(white)}
            for band, (black, white) in zip(strip.raster.bands, levels, strict=True)
        ],
        "source_uri": redact(strip.raster.uri),
        "source_sha256": strip.raster.header_sha256,
        "panchromatic_uri": redact(strip.panchromatic.uri) if strip.panchromatic else None,
        "native_resolution_m": strip.native_resolution_m,
        "sensor": facts.sensor if facts else None,
        "captured_at": captured_at,
        "off_nadir_deg": facts.off_nadir_deg if facts else None,
        "priority": facts.priority if facts else 0,
        "footprint": bytearray(strip.footprint),
    }
