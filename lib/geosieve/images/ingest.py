"""`ingest_images`: writes a source as rows of `images`, and rows that cannot be used as rows of `rejects`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from geosieve.images import archived, photos, row_checks
from geosieve.images.coordinate_lists import find_files, open_csv, open_parquet, with_row_numbers
from geosieve.images.listed import PHOTO, match_files, with_files
from geosieve.images.nothing import NOTHING
from geosieve.images.photo_rows import STAGE
from geosieve.images.records import msgpack_records, parquet_records
from geosieve.images.row_checks import OPTIONAL
from geosieve.images.sources import (
    CsvSource,
    IngestConfig,
    ListedFiles,
    MsgpackSource,
    ParquetSource,
    PhotoSource,
    RecordSource,
    Source,
)
from geosieve.job.main import Context
from geosieve.job.publishing import publishes
from geosieve.runtime.errors import InputError
from geosieve.runtime.frames import on_disk
from geosieve.tables.arrow import tasks_for
from geosieve.tables.publish import Leaf, Publication
from geosieve.tables.schemas import IMAGES, REJECTS

JOB = "ingest_images"


@dataclass(frozen=True)
class _Opened:
    """A source: how its rows are counted, its checked rows, the stage that checks, and what was found.

    `count` gets the checked rows, as they are kept: members of archives are known only when they have been read.
    """

    count: Callable[[DataFrame], int]
    checked: DataFrame
    stage: str
    found: dict[str, Any]


def _leaves(config: IngestConfig) -> list[Leaf]:
    return [Leaf(REJECTS, {"job": JOB, "part": config.source.name}), Leaf(IMAGES, {"source": config.source.name})]


@publishes(_leaves)
def ingest_images(ctx: Context[IngestConfig], publication: Publication) -> int:
    """Write the leaves `rejects/job=ingest_images/part=<source>` and `images/source=<source>` of this run.

    InputError, with nothing committed, if the source as a whole cannot be used: see `coordinate_lists`; also if
    latitude and longitude are swapped, or if every row is refused.
    """
    with ExitStack() as kept:
        with ctx.report.stage("open"):
            opened = _open(ctx, kept)
        if ctx.dry_run:
            ctx.show_plan(
                opened.found,
                {"images": _images(opened.checked), "rejects": row_checks.rejects(opened.checked, opened.stage)},
            )
            return 0
        # The parsing of a source costs more than reading back what came of it.
        checked = kept.enter_context(on_disk(opened.checked))
        return _publish(ctx, opened, checked, publication)


def _publish(ctx: Context[IngestConfig], opened: _Opened, checked: DataFrame, publication: Publication) -> int:
    report = ctx.report
    with report.stage("count_input"):
        report.rows_in = opened.count(checked)
    if report.rows_in == 0:
        raise InputError("empty input: it holds no rows", where=ctx.config.source.uri)
    # Spark does not join small partitions of what is kept on disk.
    tasks = tasks_for(ctx.spark, report.rows_in)
    with on_disk(row_checks.repeated_ids(checked).coalesce(tasks)) as repeated:
        with report.stage("check"):
            # Most sources have no id twice; then no row needs to be shuffled.
            settled = row_checks.refuse_repeats(checked, repeated) if repeated.count() else checked
            outcomes = _outcomes(ctx.config.source, settled)
        _refuse_unusable(ctx.config, outcomes)
        with report.stage("write"):
            publication.write(REJECTS, row_checks.rejects(settled, opened.stage))
            report.rows_out = publication.write(IMAGES, _images(settled))
    with report.stage("commit"):
        report.rejected = _totals(outcomes)
        _warn_of_repeats(ctx)
        report.details["inputs"] = opened.found
        report.details["warnings"] = _warnings(publication.written(IMAGES))
        report.details[NOTHING] = _words_for_nothing(outcomes)
        report.details["examples"] = {row.error_class: row.example for row in outcomes if row.error_class}
    return report.rows_in


def _open_photos(ctx: Context[IngestConfig], source: PhotoSource | ListedFiles, kept: ExitStack) -> _Opened:
    folder = photos.photo_folder(ctx.spark, source.uri)
    listing = photos.list_photos(ctx.spark, folder, source.limits)
    found: dict[str, Any] = {"files": listing.files, "bytes": listing.bytes, "folder": folder}
    files = photos.photo_files(ctx.spark, listing, source.limits)
    rows = photos.read_photos(files, folder, source.limits, source.fingerprint)
    if not listing.archives:
        return _Opened(lambda _: listing.files, rows, STAGE, found)
    found["archives"] = len(listing.archives)
    if ctx.dry_run:
        return _Opened(lambda _: listing.files, rows, STAGE, found)
    references = kept.enter_context(
        on_disk(archived.list_archives(ctx.spark, [file.uri for file in listing.archives], source.limits))
    )
    members, found["sidecars"] = archived.read_archived(references, folder, source.limits, source.fingerprint)
    checked = rows.unionByName(members)
    return _Opened(lambda read: listing.files + archived.count_archived(read), checked, STAGE, found)


def _open(ctx: Context[IngestConfig], kept: ExitStack) -> _Opened:
    source = ctx.config.source
    if isinstance(source, PhotoSource):
        return _open_photos(ctx, source, kept)
    opened = _open_list(ctx.spark, source, kept)
    return opened if source.files is None else _with_files(ctx, source.files, opened, kept)


def _open_list(spark: SparkSession, source: CsvSource | RecordSource, kept: ExitStack) -> _Opened:
    files = find_files(spark, source.uri)
    if isinstance(source, CsvSource):
        raw = open_csv(spark, source.columns, source.delimiter, files, header=source.header, encoding=source.encoding)
    elif isinstance(source, MsgpackSource):
        raw = msgpack_records(spark, source.columns, files, source.limits, source.fingerprint)
    else:
        raw = open_parquet(spark, source.columns, files)
    if source.columns.image_id is None:
        raw = with_row_numbers(raw, files)
    if isinstance(source, ParquetSource) and source.columns.image is not None:
        raw = parquet_records(raw, source.columns.image, source.limits, source.fingerprint)
    found = {"files": len(files), "bytes": sum(file.size for file in files), "first": files[0].uri}
    eastward = source.longitudes == "0..360"
    if PHOTO not in raw.columns:
        return _Opened(lambda _: raw.count(), row_checks.check_rows(raw, eastward), row_checks.STAGE, found)
    raw = kept.enter_context(on_disk(raw))  # images are decoded once
    checked = with_files(row_checks.check_rows(raw, eastward, [PHOTO]))
    return _Opened(lambda _: raw.count(), checked, row_checks.STAGE, found)


def _with_files(ctx: Context[IngestConfig], source: ListedFiles, listed: _Opened, kept: ExitStack) -> _Opened:
    """The rows of a list with their files. Refused files that no row names are rows of their own."""
    opened = _open_photos(ctx, source, kept)
    found = {**listed.found, **{f"image_{name}": value for name, value in opened.found.items()}}
    if ctx.dry_run:
        return _Opened(listed.count, listed.checked, listed.stage, found)
    rows, files = (kept.enter_context(on_disk(frame)) for frame in (listed.checked, opened.checked))
    matched = match_files(rows, files, source.match)
    found["files_not_listed"] = matched.unlisted()
    if found["files_not_listed"]:
        ctx.report.warn(f"{found['files_not_listed']} image files have no row in the list and were left out")
    checked = with_files(matched.rows).unionByName(matched.refused)
    return _Opened(lambda _: listed.count(rows) + matched.refused.count(), checked, listed.stage, found)


def _images(checked: DataFrame) -> DataFrame:
    return checked.where("error_class IS NULL").select([column.name for column in IMAGES.columns])


def _outcomes(source: Source, checked: DataFrame) -> list[Any]:
    """Per list (photos: of the folder) and error class: rows, an example message, and counts that tell coordinates."""
    # A photo is a file of its own: by file, the driver would hold a row of each.
    uri = F.lit(source.uri) if isinstance(source, PhotoSource) else F.col("input_uri")
    return (
        checked.groupBy(uri.alias("input_uri"), "error_class")
        .agg(
            F.count("*").alias("rows"),
            F.min("message").alias("example"),
            *map(F.expr, row_checks.COORDINATE_COUNTS),
            *(F.count(F.when(F.array_contains(NOTHING, name), 1)).alias(f"{NOTHING}_{name}") for name in OPTIONAL),
        )
        .collect()
    )


def _warn_of_repeats(ctx: Context[IngestConfig]) -> None:
    source, repeats = ctx.config.source, ctx.report.rejected.get("duplicate_id", 0)
    if repeats * 2 > ctx.report.rows_in and not isinstance(source, PhotoSource):
        ctx.report.warn(
            f"{repeats} of {ctx.report.rows_in} rows repeat the id of another: is {source.columns.image_id!r} the "
            "column of the image's id? With source.columns.image_id: null, row numbers are the ids"
        )


def _refuse_unusable(config: IngestConfig, outcomes: list[Any]) -> None:
    if not isinstance(config.source, PhotoSource):
        names = config.source.columns
        swap_hint = f"swap source.columns.lat and .lon, now {names.lat!r} and {names.lon!r}"
        row_checks.refuse_other_coordinates(outcomes, swap_hint, "set source.longitudes: 0..360")
    if all(row.error_class for row in outcomes):
        counts = ", ".join(f"{name} {rows}" for name, rows in sorted(_totals(outcomes).items()))
        raise InputError(
            f"every row is refused ({counts}); nothing was committed", where=config.source.uri, hint=outcomes[0].example
        )


def _totals(outcomes: list[Any]) -> dict[str, int]:
    totals: dict[str, int] = {}
    for row in outcomes:
        if row.error_class is not None:
            totals[row.error_class] = totals.get(row.error_class, 0) + row.rows
    return totals


def _words_for_nothing(outcomes: list[Any]) -> dict[str, int]:
    """How many rows hold a word for nothing, by column."""
    counts = {name: sum(row[f"{NOTHING}_{name}"] for row in outcomes) for name in OPTIONAL}
    return {name: count for name, count in counts.items() if count}


def _warnings(images: DataFrame) -> dict[str, int]:
    codes = images.select(F.explode("warnings.code").alias("code")).groupBy("code").count().collect()
    return {row["code"]: row["count"] for row in sorted(codes)}
