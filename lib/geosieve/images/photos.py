"""Folders of photos as rows: listed by the driver, read by Spark, headers parsed by `headers` in the workers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import StringType, StructField, StructType

from geosieve.images.headers import EXTENSIONS, Refusal, read_header
from geosieve.runtime.errors import InputError
from geosieve.runtime.files import FileInfo, Files, literal
from geosieve.tables.schemas import IMAGES

STAGE = "read_headers"

MAX_BYTES = 128 << 20
"""Larger files are refused as `too_large`: workers hold whole files, _FILES_PER_BATCH at once."""

# The default of 10,000 would gather gigabytes of photos; 8 are as fast as 64 for files of a megabyte.
_FILES_PER_BATCH = 8
_BATCH_SETTING = "spark.sql.execution.arrow.maxRecordsPerBatch"

_SCHEMA = StructType(
    [
        *IMAGES.spark_schema().fields,
        StructField("error_class", StringType()),
        StructField("message", StringType()),
        StructField("input_uri", StringType()),
    ]
)


def photo_folder(spark: SparkSession, uri: str) -> str:
    """The folder's full URI. InputError unless `uri` is one folder."""
    entries = Files(spark).glob(uri)
    if len(entries) != 1 or not entries[0].is_folder:
        found = "no such folder" if not entries else "photos need one folder"
        raise InputError(found, where=uri, hint="check source.uri")
    return entries[0].uri


def list_photos(spark: SparkSession, folder: str) -> list[FileInfo]:
    """Every file below `folder` that becomes a row.

    Left out are names that start with `.`, and, of those that start with `_`, all that are no images by their names.
    """
    # By ourselves: Spark's listing leaves out empty files and, unseen, Canon's `_MG_0001.JPG`.
    files, pending, found = Files(spark), [folder], []
    while pending:
        for entry in files.list(pending.pop()):
            if entry.name.startswith("."):
                continue
            if entry.is_folder:
                pending.append(entry.uri)
            elif _is_image(entry.name) or not _hidden(folder, entry.uri):
                found.append(entry)
    return found


def read_photos(spark: SparkSession, folder: str, listing: Sequence[FileInfo]) -> DataFrame:
    """The columns of `images` plus `error_class`, `message` and `input_uri`, one row a file of `listing`.

    The id is the path below `folder`. Of files that are no images by their names, or too large, no byte is read.
    """
    reasons = [(file.uri, _unreadable(folder, file)) for file in listing]
    # One path, unless a name would end the reader: then all others are named.
    named = any(why is not None and why.error_class == "bad_name" for _, why in reasons)
    paths = [literal(uri) for uri, why in reasons if why is None] if named else [literal(folder)]
    wanted = "{" + ",".join("".join(f"[{c}{c.upper()}]" for c in name) for name in EXTENSIONS) + "}"
    contents = (
        spark.read.format("binaryFile")
        .option("recursiveFileLookup", True)
        .option("pathGlobFilter", f"*.{wanted}")
        .load(paths)
        .where(F.col("length").between(1, MAX_BYTES))  # the source skips the others before it reads them
        .select("path", "content")
    )
    schema = to_arrow_schema(_SCHEMA)

    def parse(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        for batch in batches:
            files = zip(batch.column("path"), batch.column("content"), strict=True)
            rows = [_parse(folder, path.as_py(), content.as_py()) for path, content in files]
            yield pa.RecordBatch.from_pylist(rows, schema=schema)

    parsed = contents.mapInArrow(parse, _SCHEMA)
    refused = [tuple(_refused(folder, uri, why).values()) for uri, why in reasons if why is not None]
    return parsed.unionByName(spark.createDataFrame(refused, _SCHEMA))


@contextmanager
def small_batches(spark: SparkSession) -> Iterator[None]:
    """Few rows an Arrow batch in all that Spark executes inside; what `read_photos` gives must be executed so."""
    before = spark.conf.get(_BATCH_SETTING)
    spark.conf.set(_BATCH_SETTING, _FILES_PER_BATCH)
    try:
        yield
    finally:
        spark.conf.set(_BATCH_SETTING, str(before))


def _is_image(name: str) -> bool:
    return name.lower().endswith(tuple(f".{extension}" for extension in EXTENSIONS))


def _hidden(folder: str, uri: str) -> bool:
    """Whether Spark's reader leaves a file out because of a name on its path below the folder."""
    return any(part.startswith("_") and "=" not in part for part in uri[len(folder) + 1 :].split("/"))


def _unreadable(folder: str, file: FileInfo) -> Refusal | None:
    """Why a file is refused before it is read; None for those that are read."""
    if file.size == 0:
        return Refusal("empty_file", "the file has 0 bytes")
    if not _is_image(file.name):
        return Refusal("not_an_image", f"its name ends in none of {', '.join(EXTENSIONS)}")
    if file.size > MAX_BYTES:
        return Refusal("too_large", f"the file has more than {MAX_BYTES:,} bytes")
    if ":" in file.uri[len(folder) :] and file.uri.startswith("file:"):
        return Refusal("bad_name", "Spark does not read local files with a colon in their names; rename it")
    if _hidden(folder, file.uri):
        return Refusal("hidden_name", "Spark does not read files or folders named _…; rename it")
    return None


def _row(folder: str, path: str, **values: Any) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(_SCHEMA.names)
    return {**row, "image_id": path[len(folder) + 1 :], "uri": path, "input_uri": path, "warnings": [], **values}


def _refused(folder: str, path: str, why: Refusal) -> dict[str, Any]:
    return _row(folder, path, error_class=why.error_class, message=why.message)


def _parse(folder: str, path: str, content: bytes) -> dict[str, Any]:
    header = read_header(content)
    if isinstance(header, Refusal):
        return _refused(folder, path, header)
    values = {field.name: getattr(header, field.name) for field in fields(header)}
    values["warnings"] = [{"code": code, "message": message} for code, message in header.warnings]
    return _row(folder, path, content_sha256=hashlib.sha256(content).hexdigest(), **values)
