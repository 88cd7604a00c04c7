"""Images in Spark: from references to their bytes to small copies, in the order of files and archives."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import BinaryType, IntegerType, LongType, StringType, StructField, StructType

from geosieve.images.content import NO_BYTES, NO_BYTES_MESSAGE, REFERENCE, WITHOUT_BYTES, placed, read_contents
from geosieve.images.headers import Refusal
from geosieve.images.isolation import decoder
from geosieve.images.photo_rows import Row
from geosieve.tables.arrow import in_small_batches
from geosieve.training.config import TrainingSetConfig
from geosieve.training.shrink import SmallImage, shrink

SUMS = ("sum_red", "sum_green", "sum_blue")
SQUARES = ("squares_red", "squares_green", "squares_blue")
"""Columns: sums over an image's pixels of its levels (0-255) and of their squares."""

_ADDED = [
    StructField("image", BinaryType()),
    *(StructField(name, IntegerType()) for name in ("width", "height", "bytes")),
    *(StructField(name, LongType()) for name in (*SUMS, *SQUARES)),
    *(StructField(name, StringType()) for name in ("error_class", "message")),
]


def small_images(members: DataFrame, size: int, config: TrainingSetConfig) -> DataFrame:
    """A small image of each member, or why there is none; a frame to be kept, since computing it takes long.

    `members` have the columns REFERENCE and `size` bytes together. The result has their other columns and `uri`, and
    image, width, height, bytes (of the image), SUMS, SQUARES, error_class and message.
    """
    kept = [field for field in members.schema.fields if field.name == "uri" or field.name not in REFERENCE]
    schema = StructType([*kept, *_ADDED])
    arrow = to_arrow_schema(schema)
    limits, side, quality = config.limits, config.side, config.quality

    def make(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        rows = (row for batch in batches for row in batch.to_pylist())
        with decoder(limits.seconds) as decode:

            def made(row: Row, found: bytes | Refusal) -> Row:
                small = found if isinstance(found, Refusal) else shrink(found, side, quality, decode, limits.pixels)
                return {**row, **_columns_of(small)}

            small = (made(row, found) for row, found in read_contents(rows, limits))
            yield from in_small_batches(small, arrow, "image")

    with_bytes = placed(members.where(f"NOT {WITHOUT_BYTES}"), size).mapInArrow(make, schema)
    values = {"error_class": F.lit(NO_BYTES), "message": F.lit(NO_BYTES_MESSAGE)}
    without = members.where(WITHOUT_BYTES).select(
        *(F.col(field.name) for field in kept),
        *(values.get(field.name, F.lit(None)).cast(field.dataType).alias(field.name) for field in _ADDED),
    )
    return with_bytes.unionByName(without)


def _columns_of(found: SmallImage | Refusal) -> Row:
    if isinstance(found, Refusal):
        return {"error_class": found.error_class, "message": found.message[:500]}
    sums = dict(zip((*SUMS, *SQUARES), (*found.sums, *found.squares), strict=True))
    size = {"width": found.width, "height": found.height, "bytes": len(found.content)}
    return {"image": found.content, **size, **sums}
