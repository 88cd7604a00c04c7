"""A harvest: all photos that a service has in some boxes, as files, with a table that says what they are.

While it works, it keeps what it has: answers of the service in `_harvests/<name>/<run_id>/asked`, and what became of
each 250 photos in `…/taken`. A run that is started again with the same id goes on there. The tables are written at the
end, from these files.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, TypeVar

import pyarrow as pa
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import StringType, StructField, StructType

from geosieve.images.headers import Refusal
from geosieve.images.isolation import Decoder, isolated
from geosieve.job.main import Context
from geosieve.overhead.download import DownloadError, Limits, Web
from geosieve.overhead.harvest_config import HarvestConfig
from geosieve.overhead.patience import Patience
from geosieve.overhead.photo_source import Photo, PhotoSource, Refused
from geosieve.overhead.queries import Query
from geosieve.overhead.searching import complete_answers
from geosieve.runtime.errors import ConfigError, InputError, RetryableError
from geosieve.runtime.files import Files, literal
from geosieve.runtime.frames import on_disk
from geosieve.runtime.logs import logger
from geosieve.runtime.store import StoreFiles, delete_file, parquet_bytes, read_file, write_file
from geosieve.tables.arrow import TASK_ROWS
from geosieve.tables.publish import Leaf, Publication
from geosieve.tables.schemas import HARVESTED_PHOTOS, REJECTS

LIMITS = Limits(most_bytes=16 << 20, seconds=60)
"""Of one photo."""

_CHUNK = 250
_LOST_IN_A_ROW = 20  # so many photos that fail one after the other are not to blame themselves
_SEARCH, _DOWNLOAD = "search", "download"
_SETTLED_S = 3600  # photos of the last hour may still come or go, so pages would shift
_LONGEST_MESSAGE = 500

_PIXELS = 1_000_000  # a side of at most 500 pixels was asked for

C = TypeVar("C", bound=HarvestConfig)

_FAULTS = StructType([StructField(name, StringType()) for name in ("stage", "error_class", "message")])
_TAKEN = StructType(
    [*(StructField(f.name, f.dataType) for f in HARVESTED_PHOTOS.spark_schema().fields), *_FAULTS.fields]
)
"""Rows of files in `taken`: rows of the table, or with an error class of rejects."""


def leaves(job: str, config: HarvestConfig) -> list[Leaf]:
    """The leaves that the job of a harvest writes."""
    return [Leaf(REJECTS, {"job": job, "part": config.name}), Leaf(HARVESTED_PHOTOS, {"source": config.name})]


def harvest(ctx: Context[C], publication: Publication, source: PhotoSource, web: Web, patience: Patience) -> int:
    """Search, download and write both tables. Returns the number of photos that the service has returned.

    ConfigError if the run id was begun with another configuration; InputError if there is no photo at all, and as for
    `PhotoSource.page`; RetryableError if the service or the photos' hosts do not answer: the same run goes on later.
    """
    config, report = ctx.config, ctx.report
    state, photos = (
        Files(ctx.spark).absolute(config.beside_tables(kind, config.name, report.run_id))
        for kind in ("harvests", "photos")
    )
    begin, end = _times(config, state)
    boxes = short = 0
    with report.stage("harvest"), isolated() as decode:
        downloads = _Downloads(web, patience, decode, photos, config.downloads_at_once)
        for box in config.boxes:
            for query in box.queries(begin, end):
                for part, found in complete_answers(source, query, f"{state}/asked"):
                    publication.check()  # another attempt at this run would ask for the same
                    downloads.take(part, found.photos, found.refused, f"{state}/taken")
                    boxes, short = boxes + 1, short + found.short
                    fields = {"photos": len(found.photos), "refused": len(found.refused), "short": found.short}
                    logger().info(f"box {part.key} is done", extra={"fields": fields})
    report.details |= {"requests": source.requests, "boxes": boxes, "short": short, "photos": photos}
    if short:
        report.warn(f"the service promised {short} more photos than it gave")
    with report.stage("write"):
        return _publish(ctx, publication, f"{state}/taken")


def _times(config: HarvestConfig, state: str) -> tuple[int, int]:
    """Begin and end of the time of upload; the end is at most an hour before the run began for the first time."""
    uri, digest = f"{state}/begun.json", config.digest()
    if StoreFiles().exists(uri):
        begun = json.loads(read_file(uri))
        if begun["config_sha256"] != digest:
            raise ConfigError(
                "this run was begun with another configuration", where=uri, hint="choose another --run-id"
            )
        return begun["since"], begun["before"]
    since, before = config.uploaded.seconds
    before = min(before, int(time.time()) - _SETTLED_S)
    if before <= since:
        raise ConfigError("uploaded: the time has not come yet", where="uploaded.since")
    write_file(uri, json.dumps({"config_sha256": digest, "since": since, "before": before}).encode())
    return since, before


class _Downloads:
    """Downloads photos into a folder."""

    def __init__(self, web: Web, patience: Patience, decode: Decoder, folder: str, at_once: int) -> None:
        self._web, self._patience, self._decode, self._folder, self._at_once = web, patience, decode, folder, at_once
        self._lost, self._counting, self._decoding = 0, threading.Lock(), threading.Lock()

    def take(self, query: Query, photos: list[Photo], refused: list[Refused], folder: str) -> None:
        """Download the photos of an answer and write what became of them, and of those refused, as files.

        Files that are there already are kept. RetryableError if so many photos fail in a row that the network must be
        down.
        """
        if refused:
            self._keep(f"{folder}/{query.key}-refused.parquet", lambda: [_reject(None, r, _SEARCH) for r in refused])
        for start in range(0, len(photos), _CHUNK):
            chunk = photos[start : start + _CHUNK]
            self._keep(f"{folder}/{query.key}-{start:06d}.parquet", lambda chunk=chunk: self._rows(chunk))

    def _keep(self, uri: str, rows: Any) -> None:
        if not StoreFiles().exists(uri):
            table = pa.Table.from_pylist(rows(), schema=to_arrow_schema(_TAKEN))
            write_file(uri, parquet_bytes(table))

    def _rows(self, photos: list[Photo]) -> list[dict[str, Any]]:
        with ThreadPoolExecutor(self._at_once) as pool:
            return list(pool.map(self._take, photos))

    def _take(self, photo: Photo) -> dict[str, Any]:
        """One photo's row. If it is good, its file is written before."""
        uri = f"{self._folder}/{photo.id}.jpg"
        body = self._fetch(photo)
        if isinstance(body, Refused):
            delete_file(uri)  # of an attempt that ended before it was noted
            return _reject(photo, body, _DOWNLOAD)
        write_file(uri, body)
        return {
            "image_id": photo.id,
            "lat": photo.lat,
            "lon": photo.lon,
            "captured_at": photo.captured_at,
            "uploaded_at": datetime.fromtimestamp(photo.uploaded, UTC),
            "author": photo.author,
            "author_name": photo.author_name,
            "title": photo.title,
            "licence": photo.licence,
            "url": photo.url,
            "page": photo.page,
            "bytes": len(body),
            "content_sha256": hashlib.sha256(body).hexdigest(),
        }

    def _fetch(self, photo: Photo) -> bytes | Refused:
        try:
            fetched = self._patience(lambda: self._web.get(photo.url, LIMITS))
        except DownloadError as error:
            self._count(error)
            return Refused(photo.id, error.kind, str(error))
        self._count(None)
        if _name(fetched.url) != _name(photo.url):  # a picture that says that there is none
            return Refused(photo.id, "gone", f"its address leads to another file, {_name(fetched.url)[:100]!r}")
        if not fetched.body.startswith(b"\xff\xd8\xff"):
            return Refused(photo.id, "not_an_image", "the file is no JPEG")
        with self._decoding:  # in one process of its own: an image that ends it must not end the harvest
            pixels = self._decode(fetched.body, None, _PIXELS)
        return Refused(photo.id, pixels.error_class, pixels.message) if isinstance(pixels, Refusal) else fetched.body

    def _count(self, error: DownloadError | None) -> None:
        with self._counting:
            self._lost = self._lost + 1 if error is not None and error.temporary else 0
            if error is not None and self._lost >= _LOST_IN_A_ROW:
                raise RetryableError(
                    f"{_LOST_IN_A_ROW} photos in a row could not be downloaded: {error.kind}: {error.what}",
                    where=error.where,
                    hint="run again with the same --run-id; what is done is kept",
                )


def _name(url: str) -> str:
    return url.partition("?")[0].rpartition("/")[2]


def _reject(photo: Photo | None, refused: Refused, stage: str) -> dict[str, Any]:
    return {
        "image_id": refused.id,
        "url": photo.url if photo else None,
        "stage": stage,
        "error_class": refused.error_class,
        "message": refused.message[:_LONGEST_MESSAGE],
    }


def _publish(ctx: Context[C], publication: Publication, taken: str) -> int:
    report = ctx.report
    if not StoreFiles().list(taken):
        raise InputError("there is no such photo in the boxes; nothing was committed", where="boxes")
    rows = ctx.spark.read.schema(_TAKEN).parquet(literal(taken))
    with on_disk(_each_once(rows)) as settled:
        counts = {row.error_class: row["count"] for row in settled.groupBy("error_class").count().collect()}
        report.rows_in = sum(counts.values())
        report.rejected = {kind: count for kind, count in sorted(counts.items(), key=str) if kind is not None}
        tasks = -(-report.rows_in // TASK_ROWS)
        refused = settled.where("error_class IS NOT NULL").selectExpr(
            "image_id AS id", "url AS uri", "stage", "error_class", "message"
        )
        publication.write(REJECTS, refused.coalesce(tasks))
        good = settled.where("error_class IS NULL").select([c.name for c in HARVESTED_PHOTOS.columns])
        report.rows_out = publication.write(HARVESTED_PHOTOS, good.coalesce(tasks))
    return report.rows_in


def _each_once(rows: DataFrame) -> DataFrame:
    """Photos that were moved during the harvest can be in two boxes: all but one are duplicate_id."""
    good = F.col("error_class").isNull()
    order = Window.partitionBy("image_id", good).orderBy("lat", "lon", "uploaded_at", "url")
    again = good & (F.row_number().over(order) > 1)
    return rows.withColumns(
        {
            "stage": F.when(again, F.lit(_SEARCH)).otherwise(F.col("stage")),
            "message": F.when(again, F.lit("the photo is in another box, too")).otherwise(F.col("message")),
            "error_class": F.when(again, F.lit("duplicate_id")).otherwise(F.col("error_class")),
        }
    )
