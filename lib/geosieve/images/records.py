"""Records that hold an image's bytes beside its position: a column of a Parquet file, or msgpack shards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import msgpack
import pandas as pd
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import StringType, StructField, StructType

from geosieve.images.archives import opened
from geosieve.images.content import CHANGED_CONTENT, read_contents
from geosieve.images.coordinate_lists import IMAGE, INPUT_URI, MALFORMED, ROW, TEXT_COLUMNS
from geosieve.images.headers import Refusal
from geosieve.images.listed import PHOTO
from geosieve.images.members import text_of
from geosieve.images.photo_rows import PARQUET, SCHEMA, Describer, PhotoLimits, Row, describer, refused_row
from geosieve.images.sources import RecordColumns
from geosieve.runtime.files import FileInfo
from geosieve.tables.arrow import in_batches

_TEXTS = [*TEXT_COLUMNS, MALFORMED, INPUT_URI]
_RECORD = StructType([*(StructField(name, StringType()) for name in _TEXTS), StructField(PHOTO, SCHEMA)])
_ARROW = to_arrow_schema(_RECORD)

_READ_AT_ONCE = 1 << 20
_MOST_FIELDS = 1_000  # of a record


def parquet_records(rows: DataFrame, column: str, limits: PhotoLimits, fingerprint: bool) -> DataFrame:
    """Rows of `open_parquet` with ROW, as rows of text with PHOTO. `column`: the name of the column of bytes.

    Tasks read the bytes themselves, without the JVM. A damaged page of them costs the rest of its row group.
    """

    def describe(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        texts = chain.from_iterable(batch.to_pylist() for batch in batches)
        references = ({**row, "uri": row[INPUT_URI], "offset": row[ROW], **place} for row in texts)
        with describer(limits, fingerprint) as photos:
            found = (_of_parquet(photos, row, content) for row, content in read_contents(references, limits))
            yield from in_batches(found, _ARROW)

    place = {"member": column, "length": None, "compression": PARQUET, "content_sha256": None}
    return rows.select(*_TEXTS, ROW).mapInArrow(describe, _RECORD)


def _of_parquet(photos: Describer, row: Row, content: bytes | Refusal) -> Row:
    texts = {name: row[name] for name in _TEXTS}
    if isinstance(content, Refusal):
        if content.error_class == CHANGED_CONTENT:  # nothing was known of it, so that there is nothing
            return {**texts, PHOTO: _photo(photos, row["uri"], None, {})}
        return {**texts, PHOTO: refused_row("", row["uri"], content.error_class, content.message)}
    place = {name: row[name] for name in ("member", "offset", "compression")}
    return {**texts, PHOTO: _photo(photos, row["uri"], content, {**place, "length": len(content)})}


def _photo(photos: Describer, uri: str, content: object, place: Row) -> Row:
    """The row of an image whose bytes were found in a record."""
    if not isinstance(content, bytes) or not content:
        return refused_row("", uri, "empty_file", "the record has no bytes of an image")
    if len(content) > photos.limits.bytes:
        return refused_row("", uri, "too_large", f"more than {photos.limits.bytes:,} bytes (limits.bytes)")
    return photos.row("", uri, place, content)


def msgpack_records(
    spark: SparkSession, columns: RecordColumns, files: list[FileInfo], limits: PhotoLimits, fingerprint: bool
) -> DataFrame:
    """The records of msgpack files as rows of text with PHOTO. A file is read by one task, from its start.

    A record is a map. What follows damage in a file is not read; the damage is a row of its own.
    """
    names = {theirs.encode(): ours for ours, theirs in columns if theirs is not None}

    def read(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        with describer(limits, fingerprint) as photos:
            uris = chain.from_iterable(batch.column("uri").to_pylist() for batch in batches)
            rows = chain.from_iterable(_of_msgpack(photos, names, uri) for uri in uris)
            yield from in_batches(rows, _ARROW)

    uris = pd.DataFrame({"uri": [file.uri for file in files]}, dtype="object")
    return spark.createDataFrame(uris, "uri string").repartition(len(files)).mapInArrow(read, _RECORD)


def _of_msgpack(photos: Describer, names: dict[bytes, str], uri: str) -> Iterator[Row]:
    with opened(uri) as (_, size, file):
        unpacker = msgpack.Unpacker(
            file,
            read_size=_READ_AT_ONCE,
            raw=True,  # old writers do not tell bytes from texts
            max_buffer_size=photos.limits.bytes + _READ_AT_ONCE,
            max_map_len=_MOST_FIELDS,
            max_array_len=_MOST_FIELDS,
        )
        done = 0
        try:
            while done < size:
                row = _record(photos, names, uri, unpacker)
                done = unpacker.tell()
                yield row
        except (ValueError, msgpack.UnpackException) as error:
            name = "truncated_archive" if isinstance(error, msgpack.OutOfData) else "broken_archive"
            text = f"nothing behind byte {done:,} of {size:,} was read: {type(error).__name__} {str(error)[:150]}"
            yield {**dict.fromkeys(_RECORD.names), INPUT_URI: uri, PHOTO: refused_row("", uri, name, text)}


def _record(photos: Describer, names: dict[bytes, str], uri: str, unpacker: Any) -> Row:
    """The next record. Raises msgpack's errors, which are ValueError and UnpackException."""
    row: Row = {**dict.fromkeys(_RECORD.names), INPUT_URI: uri}
    content, end = None, 0
    fields = unpacker.read_map_header()
    if fields > _MOST_FIELDS:
        raise ValueError(f"a record of {fields:,} fields")
    for _ in range(fields):
        key = unpacker.unpack()
        ours = names.get(key) if isinstance(key, bytes) else None
        if ours is None:
            unpacker.skip()
        elif ours == IMAGE:
            content, end = unpacker.unpack(), unpacker.tell()
        else:
            row[ours] = _text(unpacker.unpack())
    length = len(content) if isinstance(content, bytes) else 0
    place = {"offset": end - length, "length": length, "compression": "none"}
    return {**row, PHOTO: _photo(photos, uri, content, place)}


def _text(value: object) -> str | None:
    """A value as text that `row_checks` can parse; None for what is no text or number."""
    if isinstance(value, bytes):
        return text_of(value, "latin-1")
    return repr(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
