"""Folders of photos as rows: listed by the driver, read by Spark, headers parsed by `headers` in the workers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StringType, StructField, StructType

from geosieve.images.coordinate_lists import literal
from geosieve.images.headers import EXTENSIONS, Refusal, read_header
from geosieve.runtime.errors import InputError
from geosieve.runtime.files import FileInfo, Files
from geosieve.tables.schemas import IMAGES

STAGE = "read_headers"

MAX_BYTES = 256 << 20
"""Larger files are refused as `too_large`: a worker holds a whole file, its JVM another copy."""

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
    wanted = "{" + ",".join("".join(f"[{c}{c.upper()}]" for c in name) for name in EXTENSIONS) + "}"
    contents = (
        spark.read.format("binaryFile")
        .option("recursiveFileLookup", True)
        .option("pathGlobFilter", f"*.{wanted}")
        .load(literal(folder))
        .where(F.col("length").between(1, MAX_BYTES))  # the source skips the others before it reads them
        .select("path", "content")
    )
    # Through RDDs and not Arrow: Arrow's batches have a number of rows, pickled ones a number of bytes.
    parsed = contents.rdd.map(lambda file: _parse(folder, file.path, bytes(file.content)))
    refused = [_refused(folder, file.uri, why) for file in listing if (why := _unreadable(folder, file)) is not None]
    rows = spark.createDataFrame(parsed, _SCHEMA, verifySchema=False)
    return rows.unionByName(spark.createDataFrame(refused, _SCHEMA))


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
    if _hidden(folder, file.uri):
        return Refusal("hidden_name", "Spark does not read files or folders named _…; rename it")
    return None


def _refused(folder: str, path: str, why: Refusal) -> Row:
    values: dict[str, Any] = dict.fromkeys(_SCHEMA.names)
    values |= {"image_id": path[len(folder) + 1 :], "uri": path, "input_uri": path, "warnings": []}
    values |= {"error_class": why.error_class, "message": why.message}
    return Row(*(values[name] for name in _SCHEMA.names))


def _parse(folder: str, path: str, content: bytes) -> Row:
    header = read_header(content)
    if isinstance(header, Refusal):
        return _refused(folder, path, header)
    values: dict[str, Any] = dict.fromkeys(_SCHEMA.names)
    values |= {"image_id": path[len(folder) + 1 :], "uri": path, "input_uri": path}
    values |= {name: getattr(header, name) for name in header.__dataclass_fields__}
    values["content_sha256"] = hashlib.sha256(content).hexdigest()
    return Row(*(values[name] for name in _SCHEMA.names))
