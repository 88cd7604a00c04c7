"""Rows of photographs: what a file's header and pixels say, or why the file is refused."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pydantic import Field
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import ArrayType, StringType, StructField, StructType

from geosieve.images.headers import EXTENSIONS, MAX_PIXELS, Refusal, is_whole_header
from geosieve.images.isolation import SECONDS, Decoder, HeaderReader, decoder, header_reader
from geosieve.images.members import ArchiveLimits, RefusedMember
from geosieve.images.nothing import NOTHING
from geosieve.images.perceptual_hash import SIDE, perceptual_hash
from geosieve.tables.schemas import IMAGES

STAGE = "read_photos"

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
_EMPTY: Row = dict.fromkeys(SCHEMA.names)
Read = Callable[[int | None], tuple[Row, bytes] | RefusedMember]
"""Reads at most so many bytes of an image file (None: all). Returns columns of `images` that say where the bytes are,
and the bytes."""

PARQUET = "parquet"
"""Value of `compression`: the image is in the column `member` and the row `offset` of a Parquet file."""

_START = 1 << 16  # bytes that hold the header of most JPEG files


class PhotoLimits(ArchiveLimits):
    """What is still believed of an archive or an image. What exceeds it becomes a reject."""

    bytes: int = Field(default=128 << 20, ge=1, description="largest image file; a worker holds one at a time")
    pixels: int = Field(
        default=MAX_PIXELS, ge=1, description="largest image; telephones have sensors of up to 199.8 million"
    )
    seconds: float = Field(
        default=SECONDS,
        gt=0,
        description="longest time to read or decode an image; longer ones fail a task's first attempt",
    )


def messages(limits: PhotoLimits) -> dict[str, str]:
    """Why a file is refused before it is read, by error class."""
    return {
        "empty_file": "the file has 0 bytes",
        "not_an_image": f"its name ends in none of {', '.join(EXTENSIONS)}",
        "too_large": f"the file has more than {limits.bytes:,} bytes (limits.bytes)",
    }


def is_image(name: str) -> bool:
    """Whether a file is an image by its name."""
    return name.lower().endswith(tuple(f".{extension}" for extension in EXTENSIONS))


def refusal_of(name: str, size: int, limits: PhotoLimits) -> str | None:
    """The error class of a file that is refused by its name and its size in bytes; None for those that are read."""
    if size == 0:
        return "empty_file"
    if not is_image(name):
        return "not_an_image"
    return "too_large" if size > limits.bytes else None


def refused_row(image_id: str, uri: str, error_class: str, message: str) -> Row:
    """The row of a file that is refused."""
    values = {"image_id": image_id, "uri": uri, "input_uri": uri, "warnings": [], NOTHING: []}
    return {**_EMPTY, **values, "error_class": error_class, "message": message}


@dataclass(frozen=True)
class Describer:
    """Makes rows of image files in a task. `fingerprint`: hash their bytes, decode them, and hash what they show."""

    limits: PhotoLimits
    fingerprint: bool
    decode: Decoder
    read_header: HeaderReader

    def read_row(self, image_id: str, uri: str, read: Read) -> Row:
        """The row of a file: its columns, or why it is refused. Without fingerprint, only its header is read."""
        found = self._read(read)
        if isinstance(found, RefusedMember):
            return refused_row(image_id, uri, found.error_class, found.message)
        return self.row(image_id, uri, *found)

    def row(self, image_id: str, uri: str, place: Row, content: bytes) -> Row:
        """The row of a file whose bytes were read. `place`: columns of `images` that say where they are."""
        hashes: Row = {}
        if self.fingerprint:
            pixels = self.decode(content, SIDE, self.limits.pixels)
            if isinstance(pixels, Refusal):
                return refused_row(image_id, uri, pixels.error_class, pixels.message)
            hashes["perceptual_hash"] = perceptual_hash(pixels)
            hashes["content_sha256"] = hashlib.sha256(content).hexdigest()
        header = self.read_header(content, self.limits.pixels)
        if isinstance(header, Refusal):
            return refused_row(image_id, uri, header.error_class, header.message)
        warnings = [{"code": code, "message": message} for code, message in header.warnings]
        values = {"image_id": image_id, "uri": uri, "input_uri": uri, **vars(header), "warnings": warnings}
        return {**_EMPTY, **values, **hashes, **place}

    def _read(self, read: Read) -> tuple[Row, bytes] | RefusedMember:
        if not self.fingerprint:
            start = read(_START)
            if isinstance(start, RefusedMember) or is_whole_header(start[1]):
                return start
        return read(None)


@contextmanager
def describer(limits: PhotoLimits, fingerprint: bool) -> Iterator[Describer]:
    """A Describer for one Spark task."""
    with decoder(limits.seconds) as decode, header_reader(limits.seconds) as read_header:
        yield Describer(limits, fingerprint, decode, read_header)
