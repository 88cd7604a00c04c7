"""The bytes of images that rows of `images` point to, read in Spark workers.

References move through Spark, not bytes. A task reads a file or an archive from one place onwards, so that consecutive
rows share an open file. A compressed tar is read by one task, once, from its start. Of a Parquet file, a task reads the
row groups that have its rows.
"""

from __future__ import annotations

import hashlib
import zlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import accumulate, chain, groupby
from typing import Any

import pyarrow.parquet as pq
from pyspark.sql import DataFrame

from geosieve.images.archives import Source, opened, stream_members
from geosieve.images.headers import Refusal
from geosieve.images.members import ReadAt, RefusedMember
from geosieve.images.photo_rows import PARQUET, PhotoLimits, Row, messages
from geosieve.runtime.errors import InputError
from geosieve.runtime.store import is_missing

REFERENCE = ("uri", "member", "offset", "length", "compression", "content_sha256")
"""Columns of `images` that say where the bytes are, and what they were when they were catalogued."""

WITHOUT_BYTES = "coalesce(uri RLIKE '(?i)^(https?|ftp):', true)"
"""Condition in SQL: only a list told of the image; it names no file, or one on the web."""
NO_BYTES, NO_BYTES_MESSAGE = "no_bytes", "no file is known that holds the image; its row comes from a list"
"""Error class and message of such a row."""

MISSING_FILE, CHANGED_CONTENT = "missing_file", "changed_content"
"""Error classes of images whose bytes were there when they were catalogued."""

_MISSING = Refusal(MISSING_FILE, "there is no such file")
_CHANGED = Refusal(CHANGED_CONTENT, "the file has changed since it was catalogued")

_DAMAGED = Refusal("broken_archive", "a page of the Parquet file is damaged, and with it the rest of its row group")

_BYTES_PER_TASK = 64 << 20
_IMAGES_AT_ONCE = 16  # of a column of Parquet


def placed(rows: DataFrame, size: int) -> DataFrame:
    """`rows` of `images`, spread over tasks in the order in which files and archives are read.

    All rows of a compressed tar come to one task, because they have equal keys. `size`: bytes of all images, which
    determines the number of tasks.
    """
    tasks = max(2 * rows.sparkSession.sparkContext.defaultParallelism, -(-size // _BYTES_PER_TASK))
    return rows.repartitionByRange(tasks, "uri", "offset").sortWithinPartitions("uri", "offset")


def read_contents(rows: Iterable[Row], limits: PhotoLimits) -> Iterator[tuple[Row, bytes | Refusal]]:
    """Each row with the bytes of its image, or with why there are none.

    `rows` have the columns REFERENCE, a uri, and the order of `placed`. Those of a compressed tar are held until it is
    read, and come in its order; all others keep their order.

    Error classes of refusals: missing_file, changed_content (other bytes than were catalogued, or none where they
    were), too_large, and broken_archive (a damaged page of a Parquet file). If a store fails or refuses access, its
    RetryableError or InputError is raised: then nothing is known about the file.
    """
    for (uri, packed), of_file in groupby(rows, _file_of):
        if packed is not None and packed != PARQUET:
            yield from _streamed(uri, packed, of_file, limits)
            continue
        with ExitStack() as stack:
            try:
                read_at, size, file = stack.enter_context(opened(uri))
            except InputError as error:
                _raise_unless_gone(error)
                yield from ((row, _MISSING) for row in of_file)
                continue
            if packed == PARQUET:
                yield from _of_parquet(file, of_file, limits)
            else:
                yield from ((row, _stored(row, read_at, size, limits)) for row in of_file)


def _file_of(row: Row) -> tuple[str, str | None]:
    """The file of a row and, if that cannot be read by ranges, its kind: of a compressed tar, or PARQUET."""
    compression = row["compression"]
    return row["uri"], None if compression in (None, "none", "deflate") else compression


def _stored(row: Row, read_at: ReadAt, size: int, limits: PhotoLimits) -> bytes | Refusal:
    # Of a file that a list names, only the name is known: it is read as a whole.
    offset, length = (0, size) if row["offset"] is None else (row["offset"], row["length"])
    if length > limits.bytes:
        return _too_large(limits)
    if offset + length > size:  # on S3, a seek beyond the end would look like a failure of the store
        return _CHANGED
    content = read_at(offset, length)
    if row["compression"] == "deflate":
        try:
            content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, limits.bytes + 1)
        except zlib.error:
            return _CHANGED
    return _checked(row, content, limits)


class _Column:
    """Cells of a column of bytes in a Parquet file, asked for in ascending order. Row groups in between are skipped.

    Raises ValueError if the file is no Parquet file.
    """

    def __init__(self, file: Source, column: str) -> None:
        self._file, self._column = pq.ParquetFile(file, buffer_size=1 << 20), column
        metadata = self._file.metadata
        groups = (metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))
        self._starts = [0, *accumulate(groups)]
        self._cells: Iterator[tuple[int, bytes | None]] = iter(())
        self._end, self._damaged = 0, False

    def cell(self, number: int) -> bytes | Refusal | None:
        """The cell of a row, by the row's number in the file; None if there are no bytes.

        If a page is damaged, the row and all later ones of its row group are refused as broken_archive.
        """
        if number >= self._end:
            group = bisect_right(self._starts, number) - 1
            if group >= len(self._starts) - 1 or self._column not in self._file.schema_arrow.names:
                return None
            self._end, self._damaged = self._starts[group + 1], False
            batches = self._file.iter_batches(_IMAGES_AT_ONCE, row_groups=[group], columns=[self._column])
            values = chain.from_iterable(batch.column(0) for batch in batches)
            self._cells = enumerate((value.as_py() for value in values), self._starts[group])
        try:
            content = next((content for at, content in self._cells if at == number), None)
        except (OSError, ValueError):
            self._damaged = True
        if self._damaged:
            return _DAMAGED
        return content if isinstance(content, bytes) else None


def _of_parquet(file: Any, rows: Iterable[Row], limits: PhotoLimits) -> Iterator[tuple[Row, bytes | Refusal]]:
    """Rows of one Parquet file, in ascending order of their numbers (`offset`)."""
    source, columns = Source(file), dict[str, _Column]()
    for row in rows:
        name = row["member"]
        try:
            columns[name] = columns.get(name) or _Column(source, name)
            content = columns[name].cell(row["offset"])
        except ValueError:
            content = None
        if source.failure is not None:
            raise source.failure
        if isinstance(content, Refusal):
            yield row, content
        else:
            yield row, _CHANGED if content is None else _checked(row, content, limits)


def _streamed(uri: str, kind: str, rows: Iterable[Row], limits: PhotoLimits) -> Iterator[tuple[Row, bytes | Refusal]]:
    wanted: dict[str, list[Row]] = {}
    for row in rows:
        wanted.setdefault(row["member"], []).append(row)
    refusal = _CHANGED
    try:
        for found in stream_members(uri, kind, limits, limits.bytes):
            if isinstance(found, RefusedMember):
                continue
            member, content = found
            for row in wanted.pop(member.name, ()):
                yield row, _too_large(limits) if content is None else _checked(row, content, limits)
            if not wanted:
                return
    except InputError as error:
        _raise_unless_gone(error)
        refusal = _MISSING
    for left in wanted.values():
        yield from ((row, refusal) for row in left)


def _too_large(limits: PhotoLimits) -> Refusal:
    return Refusal("too_large", messages(limits)["too_large"])


def _checked(row: Row, content: bytes, limits: PhotoLimits) -> bytes | Refusal:
    if len(content) > limits.bytes:
        return _too_large(limits)
    expected = row["content_sha256"]
    return content if expected in (None, hashlib.sha256(content).hexdigest()) else _CHANGED


def _raise_unless_gone(error: InputError) -> None:
    if not is_missing(error):
        raise error
