"""Photos of pairs in Spark: from references to their bytes to small copies, in the order of files and archives."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import BinaryType, IntegerType, StringType, StructField, StructType

from geosieve.images.content import REFERENCE, placed, read_contents
from geosieve.images.copies import jpeg_copy
from geosieve.images.headers import Refusal
from geosieve.images.isolation import Decoder, decoder
from geosieve.images.photo_rows import Row
from geosieve.overhead.pairs.config import PairsConfig
from geosieve.tables.arrow import in_small_batches

_ADDED = [
    StructField("photo", BinaryType()),
    *(StructField(name, IntegerType()) for name in ("photo_width", "photo_height")),
    *(StructField(name, StringType()) for name in ("error_class", "message")),
]


def photos(chosen: DataFrame, size: int, config: PairsConfig) -> DataFrame:
    """A small copy of each photo, or why there is none; a frame to be kept, since computing it takes long.

    `chosen` have the columns REFERENCE and `size` bytes together. The result has their other columns and `uri`, and
    photo, photo_width, photo_height, error_class and message.
    """
    chosen = chosen.drop("error_class", "message")
    kept = [field for field in chosen.schema.fields if field.name == "uri" or field.name not in REFERENCE]
    schema = StructType([*kept, *_ADDED])
    arrow = to_arrow_schema(schema)

    def make(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        rows = (row for batch in batches for row in batch.to_pylist())
        with decoder(config.limits.seconds) as decode:
            read = read_contents(rows, config.limits)
            made = ({**row, **_columns(content, config, decode)} for row, content in read)
            yield from in_small_batches(made, arrow, "photo")

    return placed(chosen, size).mapInArrow(make, schema)


def _columns(content: bytes | Refusal, config: PairsConfig, decode: Decoder) -> Row:
    if isinstance(content, Refusal):
        return _refusal(content)
    pixels = decode(content, None, config.limits.pixels, config.longest)
    if isinstance(pixels, Refusal):
        return _refusal(pixels)
    copy = jpeg_copy(content, pixels, config.quality)
    if isinstance(copy, Refusal):
        return _refusal(copy)
    height, width, _ = pixels.shape
    return {"photo": copy, "photo_width": width, "photo_height": height}


def _refusal(refusal: Refusal) -> Row:
    return {"error_class": refusal.error_class, "message": refusal.message[:500]}
