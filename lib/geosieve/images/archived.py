"""Photographs inside archives as rows. First each archive is listed, by one task; then its members are read by many.

Only references go through Spark, not the archives' bytes: a task reads the ranges that its references name. So one
large archive is shared by all cores. A compressed tar is read by one task, because it can only be read from its start.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import fields
from itertools import chain

import pandas as pd
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import LongType, StringType, StructField, StructType

from geosieve.images.archives import SUFFIXES, is_archive, list_members, opened, read_member, stream_members
from geosieve.images.content import placed
from geosieve.images.members import Member, RefusedMember
from geosieve.images.photo_rows import (
    ARROW_SCHEMA,
    SCHEMA,
    Describer,
    PhotoLimits,
    Row,
    describer,
    messages,
    refusal_of,
    refused_row,
)
from geosieve.tables.arrow import in_batches

SIDECAR = "sidecar"
"""Error class of members that describe images and are none. They are counted, and are no rows."""
_SIDECARS = (".json", ".txt", ".cls", ".csv", ".xml", ".xmp", ".md", ".html")

_TEXTS, _NUMBERS = ("uri", "name", "compression", "error_class", "message"), ("offset", "length", "size", "data", "crc")
_REFERENCE = StructType(
    [*(StructField(name, StringType()) for name in _TEXTS), *(StructField(name, LongType()) for name in _NUMBERS)]
)
IN_ARCHIVE = "lower(uri) RLIKE '({})$'".format("|".join(SUFFIXES).replace(".", r"\\."))
"""Condition in SQL: a row of SCHEMA is a member of an archive, or a fault of the archive itself (`member` is null)."""
STREAMED = "coalesce(compression LIKE 'tar.%', false)"
"""Condition in SQL: a reference stands for a whole compressed tar."""


def list_archives(spark: SparkSession, uris: list[str], limits: PhotoLimits) -> DataFrame:
    """References to the members of archives: one row per member, good or refused, and per fault of an archive.

    A compressed tar is one row. Left out are `__MACOSX` and names that start with `.`, as in folders.
    """
    schema = to_arrow_schema(_REFERENCE)

    def listed(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for archive in _rows(batches):
            uri = archive["uri"]
            found = (member for member in list_members(uri, limits) if not _is_hidden(member.name))
            yield from in_batches((_reference(uri, member, limits) for member in found), schema)

    archives = spark.createDataFrame(pd.DataFrame({"uri": uris}, dtype="object"), "uri string")
    return archives.repartition(max(1, len(uris))).mapInArrow(listed, _REFERENCE)


def read_archived(references: DataFrame, folder: str, limits: PhotoLimits, fingerprint: bool) -> tuple[DataFrame, int]:
    """The members of archives below `folder`, good or refused, as rows of SCHEMA, and the number of sidecars.

    `references`: as from `list_archives`. They are read several times, so they should be persisted.
    """
    is_sidecar = f"coalesce(error_class = '{SIDECAR}', false)"
    conditions = {"streams": STREAMED, "sidecars": is_sidecar}
    counts = [F.expr(f"count_if({condition})").alias(name) for name, condition in conditions.items()]
    found = references.agg(F.sum(F.expr(f"if({STREAMED}, 0, length)")).alias("bytes"), *counts).collect()[0]
    good = placed(references.where(f"error_class IS NULL AND NOT {STREAMED}"), found["bytes"] or 0)
    streams = references.where(STREAMED).repartition(max(1, found["streams"]))
    refused = references.where(f"error_class != '{SIDECAR}'")

    def members(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        with describer(limits, fingerprint) as rows:
            yield from in_batches(_member_rows(rows, folder, _rows(batches)), ARROW_SCHEMA)

    def streamed(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        with describer(limits, fingerprint) as rows:
            for row in _rows(batches):
                yield from in_batches(_stream_rows(rows, folder, row["uri"], row["compression"]), ARROW_SCHEMA)

    def refusals(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        found = (
            _refused(folder, row["uri"], RefusedMember(row["name"], row["error_class"], row["message"]))
            for row in _rows(batches)
        )
        yield from in_batches(found, ARROW_SCHEMA)

    rows = good.mapInArrow(members, SCHEMA).unionByName(refused.mapInArrow(refusals, SCHEMA))
    if found["streams"]:
        rows = rows.unionByName(streams.mapInArrow(streamed, SCHEMA))
    return rows, found["sidecars"]


def count_archived(rows: DataFrame) -> int:
    """The number of rows of SCHEMA that come from archives."""
    return rows.where(IN_ARCHIVE).count()


def _rows(batches: Iterable[pa.RecordBatch]) -> Iterator[Row]:
    return chain.from_iterable(batch.to_pylist() for batch in batches)


def _member_rows(rows: Describer, folder: str, references: Iterable[Row]) -> Iterator[Row]:
    """Rows of members of zips and plain tars, in the order of `references`."""
    names = [field.name for field in fields(Member)]

    def read(most: int | None) -> tuple[Row, bytes] | RefusedMember:
        found = read_member(read_at, member, most)
        return found if isinstance(found, RefusedMember) else (_place(found[0]), found[1])

    with ExitStack() as stack:
        uri = ""
        for reference in references:
            if reference["uri"] != uri:
                stack.close()
                uri = reference["uri"]
                read_at, _, _ = stack.enter_context(opened(uri))
            member = Member(**{name: reference[name] for name in names})
            yield {**rows.read_row(_id(folder, uri, member.name), uri, read), "member": member.name}


def _stream_rows(rows: Describer, folder: str, uri: str, kind: str) -> Iterator[Row]:
    """Rows of the members of a compressed tar, read from its start."""
    for found in stream_members(uri, kind, rows.limits, rows.limits.bytes):
        member, content = (found, None) if isinstance(found, RefusedMember) else found
        if _is_hidden(member.name):
            continue
        refused = member if isinstance(member, RefusedMember) else _refusal(member, rows.limits)
        if refused is None and isinstance(member, Member) and content is not None:
            place = {"member": member.name, "length": member.length, "compression": kind}
            yield {**rows.row(_id(folder, uri, member.name), uri, place, content), "member": member.name}
        elif refused is not None and refused.error_class != SIDECAR:
            yield _refused(folder, uri, refused)


def _place(member: Member) -> Row:
    """The columns of `images` that say where the member's bytes are."""
    return {"member": member.name, "offset": member.data, "length": member.length, "compression": member.compression}


def _refused(folder: str, uri: str, member: RefusedMember) -> Row:
    return {
        **refused_row(_id(folder, uri, member.name), uri, member.error_class, member.message),
        "member": member.name,
    }


def _id(folder: str, uri: str, name: str | None) -> str:
    """The archive's path below the folder, and the member's path in the archive."""
    return uri[len(folder) + 1 :] + (f"/{name}" if name else "")


def _reference(uri: str, member: Member | RefusedMember, limits: PhotoLimits) -> Row:
    refused = _refusal(member, limits) if isinstance(member, Member) and member.name else None
    found = refused or member
    return {"uri": uri, **{name: getattr(found, name) for name in found.__slots__}}


def _refusal(member: Member, limits: PhotoLimits) -> RefusedMember | None:
    """Why a member is refused by its name and size, before it is read; None for those that are read."""
    if member.name.lower().endswith(_SIDECARS):
        return RefusedMember(member.name, SIDECAR, "")
    if is_archive(member.name):
        return RefusedMember(member.name, "nested_archive", "an archive inside a compressed tar cannot be entered")
    error_class = refusal_of(member.name, max(member.size, member.length), limits)
    return None if error_class is None else RefusedMember(member.name, error_class, messages(limits)[error_class])


def _is_hidden(name: str | None) -> bool:
    return name is not None and (name.startswith("__MACOSX/") or name.rpartition("/")[2].startswith("."))
