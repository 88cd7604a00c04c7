"""Folders of photos as rows: listed by the driver and by Spark, read by workers. Only paths go through Spark."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain

import pandas as pd
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from geosieve.images.archives import is_archive, opened
from geosieve.images.headers import EXTENSIONS
from geosieve.images.members import RefusedMember
from geosieve.images.nothing import NOTHING
from geosieve.images.photo_rows import (
    ARROW_SCHEMA,
    SCHEMA,
    PhotoLimits,
    Row,
    describer,
    is_image,
    messages,
    refusal_of,
)
from geosieve.runtime.errors import InputError
from geosieve.runtime.files import FileInfo, Files, literal
from geosieve.runtime.store import is_missing
from geosieve.tables.arrow import in_batches

_FOLDERS_AT_ONCE = 8  # requests to the store in flight while a folder is listed

_BAD_NAME = "bad_name"
_MESSAGES = {
    _BAD_NAME: "Spark does not read local files with a colon in their names; rename it",
    "hidden_name": "Spark does not read files or folders named _…; rename it",
}


def photo_folder(spark: SparkSession, uri: str) -> str:
    """The folder's full URI. InputError unless `uri` is one folder."""
    entries = Files(spark).named(uri)
    if len(entries) != 1 or not entries[0].is_folder:
        found = "no such folder" if not entries else "photos need one folder"
        raise InputError(found, where=uri, hint="check source.uri")
    return entries[0].uri


@dataclass(frozen=True)
class Listing:
    """The files of a folder that become rows: their number, total bytes, and refused files with their error class.

    Files that will be read are only counted, so that the driver's memory does not grow with the number of photos.
    `archives`: the archives beside them; their members become rows.
    """

    folder: str
    files: int
    bytes: int
    refused: list[tuple[FileInfo, str]]
    archives: list[FileInfo]


def list_photos(spark: SparkSession, folder: str, limits: PhotoLimits) -> Listing:
    """Every file below `folder` that becomes a row.

    Left out are names that start with `.`, and, of those that start with `_`, all that are no images by their names.
    """
    files, size, refused, archives = 0, 0, [], []
    for entry in _walk(spark, folder):
        if is_archive(entry.name):
            archives.append(entry)
            continue
        files, size = files + 1, size + entry.size
        why = _unreadable(folder, entry, limits)
        if why is not None:
            refused.append((entry, why))
    return Listing(folder, files, size, refused, archives)


def _walk(spark: SparkSession, folder: str) -> Iterator[FileInfo]:
    # By ourselves: Spark's listing leaves out empty files and, unseen, Canon's `_MG_0001.JPG`.
    files, pending = Files(spark), [folder]
    with ThreadPoolExecutor(_FOLDERS_AT_ONCE) as pool:
        while pending:
            batch = pending[-_FOLDERS_AT_ONCE:]
            del pending[-_FOLDERS_AT_ONCE:]
            for entry in chain.from_iterable(pool.map(files.list, batch)):
                if entry.name.startswith("."):
                    continue
                if entry.is_folder:
                    pending.append(entry.uri)
                elif is_image(entry.name) or not _hidden(folder, entry.uri):
                    yield entry


def file_rows(spark: SparkSession, files: Iterable[tuple[FileInfo, str | None]]) -> DataFrame:
    """Files and their error classes as rows: uri, bytes, modified_at and error_class."""
    listed = [(file.uri, file.size, file.modified_ms, error_class) for file, error_class in files]
    frame = pd.DataFrame(listed, columns=["uri", "bytes", "ms", "error_class"], dtype="object")
    rows = spark.createDataFrame(frame, "uri string, bytes bigint, ms bigint, error_class string")
    return rows.select("uri", "bytes", F.timestamp_millis("ms").alias("modified_at"), "error_class")


def photo_files(spark: SparkSession, listing: Listing, limits: PhotoLimits) -> DataFrame:
    """The files of a listing but archives: uri, bytes, modified_at and, if they are refused by name or size, why."""
    folder = listing.folder
    paths = [literal(folder)]
    if any(error_class == _BAD_NAME for _, error_class in listing.refused):
        # Such a name would end the reader: all others are named.
        paths = [literal(entry.uri) for entry in _walk(spark, folder) if _unreadable(folder, entry, limits) is None]
    wanted = "{" + ",".join("".join(f"[{c}{c.upper()}]" for c in name) for name in EXTENSIONS) + "}"
    files = (
        spark.read.format("binaryFile")
        .option("recursiveFileLookup", True)
        .option("pathGlobFilter", f"*.{wanted}")
        .load(paths)
        .where(F.col("length").between(1, limits.bytes))
        # Without `content`, Spark opens no file.
        .select(
            F.col("path").alias("uri"),
            F.col("length").alias("bytes"),
            F.col("modificationTime").alias("modified_at"),
            F.lit(None).cast("string").alias("error_class"),
        )
    )
    refused = file_rows(spark, listing.refused)
    if listing.refused:  # a file that was empty when it was listed may have been filled before Spark listed it
        files = files.join(F.broadcast(refused.select("uri")), "uri", "left_anti")
    return files.unionByName(refused)


def read_photos(files: DataFrame, folder: str, limits: PhotoLimits, fingerprint: bool) -> DataFrame:
    """The columns of `images` plus `error_class`, `message`, `input_uri` and NOTHING, one row per row of `photo_files`.

    The id is the path below the folder. Files that are too large, or have no image extension, are not read at all.
    """

    def read(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        with describer(limits, fingerprint) as rows:
            uris = chain.from_iterable(batch.column("uri").to_pylist() for batch in batches)
            found = (rows.read_row(uri[len(folder) + 1 :], uri, partial(_read, uri)) for uri in uris)
            yield from in_batches(found, ARROW_SCHEMA)

    good = files.where("error_class IS NULL").select("uri")
    refused = files.where("error_class IS NOT NULL")
    return good.mapInArrow(read, SCHEMA).unionByName(_refused_rows(refused, folder, limits))


def _read(path: str, most: int | None) -> tuple[Row, bytes] | RefusedMember:
    try:
        with opened(path) as (read_at, size, _):
            content = read_at(0, size if most is None else most)
    except InputError as error:
        if is_missing(error):
            return RefusedMember(None, "missing_file", "it was gone when it was to be read")
        raise
    return {"offset": 0, "length": size, "compression": "none"}, content


def _refused_rows(files: DataFrame, folder: str, limits: PhotoLimits) -> DataFrame:
    texts = F.create_map(*(F.lit(text) for pair in {**_MESSAGES, **messages(limits)}.items() for text in pair))
    values = {
        "image_id": F.expr(f"substring(uri, {len(folder) + 2})"),
        "uri": F.col("uri"),
        "warnings": F.array(),
        "error_class": F.col("error_class"),
        "message": texts[F.col("error_class")],
        "input_uri": F.col("uri"),
        NOTHING: F.array(),
    }
    nothing = F.lit(None)
    return files.select(*(values.get(c.name, nothing).cast(c.dataType).alias(c.name) for c in SCHEMA))


def _hidden(folder: str, uri: str) -> bool:
    """Whether Spark's reader leaves a file out because of a name on its path below the folder."""
    return any(part.startswith("_") and "=" not in part for part in uri[len(folder) + 1 :].split("/"))


def _unreadable(folder: str, file: FileInfo, limits: PhotoLimits) -> str | None:
    """The error class of a file that is refused before it is read; None for those that are read."""
    refusal = refusal_of(file.name, file.size, limits)
    if refusal is not None:
        return refusal
    if ":" in file.uri[len(folder) :] and file.uri.startswith("file:"):
        return _BAD_NAME
    return "hidden_name" if _hidden(folder, file.uri) else None
