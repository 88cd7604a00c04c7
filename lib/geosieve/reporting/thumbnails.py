"""Small copies of some images for a page, made by workers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import simplejpeg
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import BinaryType, LongType, StructField, StructType

from geosieve.images.content import REFERENCE, WITHOUT_BYTES, placed, read_contents
from geosieve.images.headers import Refusal
from geosieve.images.isolation import decoder
from geosieve.images.read import ImagesInput, read_images
from geosieve.reporting.archive_config import Thumbnails
from geosieve.tables.schemas import IMAGE_KEY

_SCHEMA = StructType([StructField("number", LongType()), StructField("jpeg", BinaryType())])
_LONGER = 3  # the longer side has at most so many times the shorter one: a strip is cut to its middle


def thumbnails(wanted: DataFrame, root: str, config: Thumbnails) -> dict[int, bytes]:
    """JPEG files by the column `number` of `wanted`, which has source and id, too.

    They hold pixels and nothing else: no EXIF. Images whose bytes are gone, have changed or do not decode have none.
    """
    spark = wanted.sparkSession
    rows = read_images(spark, ImagesInput(root=root, sources=[], run="all")).rows
    rows = rows.where(f"NOT {WITHOUT_BYTES}").join(F.broadcast(wanted.select(*IMAGE_KEY, "number")), [*IMAGE_KEY])
    limits, side, quality = config.limits, config.side, config.quality
    arrow = to_arrow_schema(_SCHEMA)

    def made(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        references = (row for batch in batches for row in batch.to_pylist())
        with decoder(limits.seconds) as decode:
            for row, content in read_contents(references, limits):
                pixels = content if isinstance(content, Refusal) else decode(content, side, limits.pixels)
                if isinstance(pixels, Refusal):
                    continue
                most = _LONGER * min(pixels.shape[:2])
                top, left = (max(0, (length - most) // 2) for length in pixels.shape[:2])
                pixels = np.ascontiguousarray(pixels[top : top + most, left : left + most])
                jpeg = simplejpeg.encode_jpeg(pixels, quality, "RGB", "420")
                yield pa.RecordBatch.from_pylist([{"number": row["number"], "jpeg": jpeg}], schema=arrow)

    found = placed(rows.select("number", *REFERENCE), 0).mapInArrow(made, _SCHEMA)
    return {row["number"]: bytes(row["jpeg"]) for row in found.collect()}
