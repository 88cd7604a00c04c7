"""The bytes of images that rows of `images` point to, read in Spark workers.

References move through Spark, not bytes. A task reads a file or an archive from one place onwards, so that consecutive
rows share an open file. A compressed tar is read by one task, once, from its start.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import groupby

from pyspark.sql import DataFrame

from geosieve.images.archives import opened, stream_members
from geosieve.images.headers import Refusal
from geosieve.images.members import ArchiveLimits, ReadAt, RefusedMember
from geosieve.images.photo_rows import MAX_BYTES, MESSAGES, Row
from geosieve.runtime.errors import InputError
from geosieve.runtime.failures import of_store

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
_TOO_LARGE = Refusal("too_large", MESSAGES["too_large"])

_BYTES_PER_TASK = 64 << 20


def placed(rows: DataFrame, size: int) -> DataFrame:
    """`rows` of `images`, spread over tasks in the order in which files and archives are read.

    All rows of a compressed tar come to one task, because they have equal keys. `size`: bytes of all images, which
    determines the number of tasks.
    """
    tasks = max(2 * rows.sparkSession.sparkContext.defaultParallelism, -(-size // _BYTES_PER_TASK))
    return rows.repartitionByRange(tasks, "uri", "offset").sortWithinPartitions("uri", "offset")


def read_contents(rows: Iterable[Row], limits: ArchiveLimits) -> Iterator[tuple[Row, bytes | Refusal]]:
    """Each row with the bytes of its image, or with why there are none.

    `rows` have the columns REFERENCE, a uri, and the order of `placed`. Those of a compressed tar are held until it is
    read, and come in its order; all others keep their order. `limits`: of compressed tars.

    Error classes of refusals: missing_file, changed_content (other bytes than were catalogued, or none where they
    were), too_large. If a store fails or refuses access, its RetryableError or InputError is raised: then nothing is
    known about the file.
    """
    for (uri, packed), of_file in groupby(rows, _file_of):
        if packed is None:
            yield from _ranged(uri, of_file)
            continue
        yield from _streamed(uri, packed, of_file, limits)


def _file_of(row: Row) -> tuple[str, str | None]:
    """The file of a row and, if that is a compressed tar, its kind."""
    compression = row["compression"]
    return row["uri"], compression if compression is not None and compression.startswith("tar.") else None


def _ranged(uri: str, rows: Iterable[Row]) -> Iterator[tuple[Row, bytes | Refusal]]:
    with ExitStack() as stack:
        try:
            read_at, size, _ = stack.enter_context(opened(uri))
        except InputError as error:
            _raise_unless_gone(error)
            yield from ((row, _MISSING) for row in rows)
            return
        for row in rows:
            yield row, _stored(row, read_at, size)


def _stored(row: Row, read_at: ReadAt, size: int) -> bytes | Refusal:
    # Of a file that a list names, only the name is known: it is read as a whole.
    offset, length = (0, size) if row["offset"] is None else (row["offset"], row["length"])
    if length > MAX_BYTES:
        return _TOO_LARGE
    if offset + length > size:  # on S3, a seek beyond the end would look like a failure of the store
        return _CHANGED
    content = read_at(offset, length)
    if row["compression"] == "deflate":
        try:
            content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, MAX_BYTES + 1)
        except zlib.error:
            return _CHANGED
    return _checked(row, content)


def _streamed(uri: str, kind: str, rows: Iterable[Row], limits: ArchiveLimits) -> Iterator[tuple[Row, bytes | Refusal]]:
    wanted: dict[str, list[Row]] = {}
    for row in rows:
        wanted.setdefault(row["member"], []).append(row)
    refusal = _CHANGED
    try:
        for found in stream_members(uri, kind, limits, MAX_BYTES):
            if isinstance(found, RefusedMember):
                # A store that fails in the middle looks like a damaged archive; only the text tells.
                failure = of_store(found.message, uri)
                if failure is not None:
                    raise failure
                continue
            member, content = found
            for row in wanted.pop(member.name, ()):
                yield row, _TOO_LARGE if content is None else _checked(row, content)
            if not wanted:
                return
    except InputError as error:
        _raise_unless_gone(error)
        refusal = _MISSING
    for left in wanted.values():
        yield from ((row, refusal) for row in left)


def _checked(row: Row, content: bytes) -> bytes | Refusal:
    if len(content) > MAX_BYTES:
        return _TOO_LARGE
    expected = row["content_sha256"]
    return content if expected in (None, hashlib.sha256(content).hexdigest()) else _CHANGED


def _raise_unless_gone(error: InputError) -> None:
    if not isinstance(error.__cause__, FileNotFoundError):
        raise error
