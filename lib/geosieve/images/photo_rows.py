"""Rows of photographs: what a file's header and bytes say, or why the file is refused."""

from __future__ import annotations

import hashlib
from dataclasses import fields
from typing import Any

from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import ArrayType, StringType, StructField, StructType

from geosieve.images.headers import EXTENSIONS, Refusal, read_header
from geosieve.images.nothing import NOTHING
from geosieve.tables.schemas import IMAGES

STAGE = "read_headers"

MAX_BYTES = 128 << 20
"""Larger files are refused as `too_large`: workers hold whole files."""

MESSAGES = {
    "empty_file": "the file has 0 bytes",
    "not_an_image": f"its name ends in none of {', '.join(EXTENSIONS)}",
    "too_large": f"the file has more than {MAX_BYTES:,} bytes",
}
"""Why a file is refused before it is read, by error class."""

SCHEMA = StructType(
    [
        *IMAGES.spark_schema().fields,
        StructField("error_class", StringType()),
        StructField("message", StringType()),
        StructField("input_uri", StringType()),
        StructField(NOTHING, ArrayType(StringType())),
    ]
)
ARROW_SCHEMA = to_arrow_schema(SCHEMA)

Row = dict[str, Any]


def is_image(name: str) -> bool:
    """Whether a file is an image by its name."""
    return name.lower().endswith(tuple(f".{extension}" for extension in EXTENSIONS))


def refusal_of(name: str, size: int) -> str | None:
    """The error class of a file that is refused by its name and its size in bytes; None for those that are read."""
    if size == 0:
        return "empty_file"
    if not is_image(name):
        return "not_an_image"
    return "too_large" if size > MAX_BYTES else None


def refused_row(image_id: str, uri: str, error_class: str, message: str) -> Row:
    """The row of a file that is refused."""
    row: Row = dict.fromkeys(SCHEMA.names)
    values = {"image_id": image_id, "uri": uri, "input_uri": uri, "warnings": [], NOTHING: []}
    return {**row, **values, "error_class": error_class, "message": message}


def row_of(image_id: str, uri: str, content: bytes, **place: Any) -> Row:
    """The row of a file, from its bytes. `place`: where they are, as columns of `images`."""
    header = read_header(content)
    if isinstance(header, Refusal):
        return refused_row(image_id, uri, header.error_class, header.message)
    row: Row = dict.fromkeys(SCHEMA.names)
    values = {field.name: getattr(header, field.name) for field in fields(header)}
    values["warnings"] = [{"code": code, "message": message} for code, message in header.warnings]
    digest = hashlib.sha256(content).hexdigest()
    return {**row, "image_id": image_id, "uri": uri, "input_uri": uri, **values, "content_sha256": digest, **place}
