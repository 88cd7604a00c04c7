"""Folders of photos as rows: files are listed and read by Spark, headers parsed by `headers` in the workers.

Listing follows Spark: names that start with `.` or `_` are hidden and are no rows.
"""

from __future__ import annotations

import hashlib
from typing import Any

from geosieve.images.headers import EXTENSIONS, Refusal, read_header
from geosieve.runtime.errors import InputError
from geosieve.runtime.files import Files
from geosieve.tables.schemas import IMAGES
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StringType, StructField, StructType

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


def list_photos(spark: SparkSession, folder: str) -> DataFrame:
    """Every file below `folder`: `path`, `length` in bytes. Contents are not read."""
    reader = spark.read.format("binaryFile").option("recursiveFileLookup", True)
    return reader.load(folder).select("path", "length")


def read_photos(spark: SparkSession, folder: str) -> DataFrame:
    """The columns of `images` plus `error_class`, `message` and `input_uri`, one row a file.

    The id is the path below `folder`. Of files that are no images by their names, or too large, no byte is read.
    """
    wanted = "{" + ",".join("".join(f"[{c}{c.upper()}]" for c in name) for name in EXTENSIONS) + "}"
    contents = (
        spark.read.format("binaryFile")
        .option("recursiveFileLookup", True)
        .option("pathGlobFilter", f"*.{wanted}")
        .load(folder)
        .where(F.col("length").between(1, MAX_BYTES))  # the source skips the others before it reads them
        .select("path", "content")
    )
    # Through RDDs and not Arrow: Arrow's batches have a number of rows, pickled ones a number of bytes.
    parsed = contents.rdd.map(lambda file: _parse(folder, file.path, bytes(file.content)))
    return spark.createDataFrame(parsed, _SCHEMA, verifySchema=False).unionByName(_unread(spark, folder))


def _unread(spark: SparkSession, folder: str) -> DataFrame:
    is_image = F.col("path").rlike(rf"(?i)\.({'|'.join(EXTENSIONS)})$")
    refused = F.struct(F.lit("not_an_image"), F.lit(f"its name ends in none of {', '.join(EXTENSIONS)}"))
    empty = F.struct(F.lit("empty_file"), F.lit("the file has 0 bytes"))
    large = F.struct(F.lit("too_large"), F.lit(f"the file has more than {MAX_BYTES:,} bytes"))
    error = F.when(F.col("length") == 0, empty).when(~is_image, refused).when(F.col("length") > MAX_BYTES, large)
    columns = {
        "image_id": F.substring(F.col("path"), len(folder) + 2, 1 << 16),
        "uri": F.col("path"),
        "warnings": F.array().cast(IMAGES.spark_schema()["warnings"].dataType),
        "error_class": F.col("error.col1"),
        "message": F.col("error.col2"),
        "input_uri": F.col("path"),
    }
    nothing = {f.name: F.lit(None).cast(f.dataType) for f in _SCHEMA if f.name not in columns}
    rows = list_photos(spark, folder).withColumn("error", error).where("error IS NOT NULL")
    return rows.withColumns({**columns, **nothing}).select(_SCHEMA.names)


def _parse(folder: str, path: str, content: bytes) -> Row:
    header = read_header(content)
    values: dict[str, Any] = dict.fromkeys(_SCHEMA.names)
    values |= {"image_id": path[len(folder) + 1 :], "uri": path, "input_uri": path, "warnings": []}
    values["content_sha256"] = hashlib.sha256(content).hexdigest()
    if isinstance(header, Refusal):
        values |= {"error_class": header.error_class, "message": header.message}
    else:
        values |= {name: getattr(header, name) for name in header.__dataclass_fields__}
    return Row(*(values[name] for name in _SCHEMA.names))
