"""Opening lists of coordinates (CSV, Parquet) as rows of text, after checking that the columns asked for are there.

Everything is read as text and parsed by `row_checks`: Spark's own inference turns `0012` into 12, `48,85` into null
and a whole column into text because of one bad row. Failures covered here, all before a row is read: nothing to
read, an empty file, a column that is missing or occurs twice, files whose headers differ, a Parquet type that cannot
hold the value.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import (
    ArrayType,
    BinaryType,
    BooleanType,
    DataType,
    DecimalType,
    DoubleType,
    FloatType,
    MapType,
    NullType,
    StringType,
    StructField,
    StructType,
)

from geosieve.images.sources import Columns
from geosieve.runtime.errors import InputError
from geosieve.runtime.files import FileInfo, Files, literal
from geosieve.runtime.names import nearest

TEXT_COLUMNS = tuple(Columns.model_fields)
MALFORMED, INPUT_URI = "malformed", "input_uri"

Names = Iterable[tuple[str, str | None]]
"""Pairs of our name of a column and a list's own, or None where the list has no such column."""

_HEADER_BYTES = 1 << 16  # a header line longer than this is no header
_MOST_FIELDS = 1 << 20  # a line with more fields than this, unlike one with just too many, ends the job
_HEADERS_AT_ONCE = 16  # requests to the store in flight while headers are compared


def find_files(spark: SparkSession, uri: str, key: str = "source") -> list[FileInfo]:
    """The files that a path, a folder or a glob names. InputError if there is none or all are empty."""
    files = Files(spark)
    found: list[FileInfo] = []
    for entry in files.glob(uri):
        found += files.walk(entry.uri) if entry.is_folder else [entry]
    if not found:
        raise InputError("no such file, or an empty folder", where=uri, hint=f"check {key}.uri")
    if all(file.size == 0 for file in found):
        raise InputError("empty input: every file has 0 bytes", where=uri)
    for file in found:
        if file.name.startswith((".", "_")):
            raise InputError("Spark does not read files named _… or .…", where=file.uri, hint="rename it")
    return found


def open_csv(
    spark: SparkSession, columns: Names, delimiter: str, files: Sequence[FileInfo], key: str = "source"
) -> DataFrame:
    """Rows of text: TEXT_COLUMNS (null where not mapped), what else is mapped, MALFORMED (the raw row if it does not
    fit the header; else null) and INPUT_URI. InputError names the file whose header cannot be used.
    """
    with ThreadPoolExecutor(_HEADERS_AT_ONCE) as pool:
        headers = list(pool.map(lambda file: csv_header(spark, file.uri, delimiter), files))
    for file, header in zip(files, headers, strict=True):
        _check_mapped(columns, header, file.uri, key)
        if header != headers[0]:
            raise InputError(
                f"its header differs from that of {files[0].uri}: {_difference(headers[0], header)}",
                where=file.uri,
                hint="ingest the files as separate sources, or give them one header",
            )
    # Positions instead of names: a header may hold names that Spark takes for one (`id` and `ID`).
    fields = [StructField(f"_{position}", StringType()) for position in range(len(headers[0]))]
    paths = [literal(file.uri) for file in files]
    breaks = _has_line_breaks_in_quotes(spark, paths)
    frame = (
        spark.read.schema(StructType([*fields, StructField(MALFORMED, StringType())]))
        .option("header", True)
        .option("sep", delimiter)
        .option("escape", '"')
        .option("columnNameOfCorruptRecord", MALFORMED)
        .option("columnPruning", False)  # with it, rows with too many or too few fields pass unnoticed
        .option("maxColumns", _MOST_FIELDS)
        .option("multiLine", breaks)
        .csv(paths)
    )
    if breaks:  # in this mode alone, Spark takes a line of blanks for a row
        frame = frame.where(F.coalesce(F.btrim(MALFORMED, F.lit(" \t\r\n")) != "", F.lit(True)))
        _refuse_swallowed_rows(frame, headers[0], _mapped(columns), delimiter)
    texts = {ours: F.col(f"_{headers[0].index(theirs)}") for ours, theirs in _mapped(columns).items()}
    return _rows(frame, texts, F.col(MALFORMED))


def open_parquet(spark: SparkSession, columns: Names, files: Sequence[FileInfo], key: str = "source") -> DataFrame:
    """Rows as of `open_csv`, MALFORMED always null. InputError if a file is no Parquet or its columns do not fit."""
    with ThreadPoolExecutor(_HEADERS_AT_ONCE) as pool:
        schemas = list(pool.map(lambda file: _parquet_schema(spark, file.uri), files))
    mapped = _mapped(columns)
    for file, schema in zip(files, schemas, strict=True):
        _check_mapped(columns, schema.names, file.uri, key)
        for ours, theirs in mapped.items():
            kind, first = schema[theirs].dataType, schemas[0][theirs].dataType
            _check_type(ours, theirs, kind, file.uri, key)
            if kind != first:
                raise InputError(
                    f"column {theirs!r} is {kind.simpleString()} but {first.simpleString()} in {files[0].uri}",
                    where=file.uri,
                    hint="ingest the files as separate sources",
                )
    frame = spark.read.schema(schemas[0]).parquet(*(literal(file.uri) for file in files))
    texts = {ours: _as_text(ours, theirs, schemas[0][theirs].dataType) for ours, theirs in mapped.items()}
    return _rows(frame, texts, F.lit(None).cast("string"))


def _rows(frame: DataFrame, texts: dict[str, Column], malformed: Column) -> DataFrame:
    nothing = F.lit(None).cast("string")
    columns = [text.alias(ours) for ours, text in {**dict.fromkeys(TEXT_COLUMNS, nothing), **texts}.items()]
    return frame.select(*columns, malformed.alias(MALFORMED), _input_uri().alias(INPUT_URI))


def _input_uri() -> Column:
    """URI of the file that a row is of, as the store names it: Spark gives it with %20 for a space."""
    name = F.input_file_name()
    # Of most names nothing is to be decoded, which costs a third of the reading of a list.
    return F.when(name.contains("%"), F.url_decode(F.replace(name, F.lit("+"), F.lit("%2B")))).otherwise(name)


def _mapped(columns: Names) -> dict[str, str]:
    return {ours: theirs for ours, theirs in columns if theirs is not None}


def _check_mapped(columns: Names, header: Sequence[str], uri: str, key: str) -> None:
    for ours, theirs in _mapped(columns).items():
        if header.count(theirs) == 1:
            continue
        if theirs in header:
            raise InputError(f"{key}.columns.{ours}: column {theirs!r} occurs {header.count(theirs)} times", where=uri)
        near = ", ".join(repr(name) for name in nearest(theirs, header))
        raise InputError(
            f"{key}.columns.{ours}: there is no column {theirs!r}",
            where=uri,
            hint=f"nearest: {near}" if near else f"its columns: {', '.join(header)[:500]}",
        )


def _difference(first: Sequence[str], other: Sequence[str]) -> str:
    lacks, adds = [n for n in first if n not in other], [n for n in other if n not in first]
    parts = [f"it lacks {', '.join(lacks)}"] if lacks else []
    parts += [f"it adds {', '.join(adds)}"] if adds else []
    return "; ".join(parts)[:500] or "the same columns in another order"


def csv_header(spark: SparkSession, uri: str, delimiter: str) -> list[str]:
    """The names in a CSV file's first record. Reads at most _HEADER_BYTES of it, through its codec (.gz, .bz2)."""
    first = next(csv.reader(io.StringIO(_head(spark, uri), newline=""), delimiter=delimiter), [])
    names = [name.strip() for name in first]
    if not any(names):
        raise InputError("empty file: it has no header line", where=uri)
    if "\0" in "".join(names):
        raise InputError("its header holds NUL characters", where=uri, hint="convert the file to UTF-8")
    return names


def _head(spark: SparkSession, uri: str) -> str:
    # The driver's JVM reads it: Files.read_text would fetch the whole file.
    jvm: Any = spark._jvm
    hadoop, commons = jvm.org.apache.hadoop, jvm.org.apache.commons.io
    conf = spark._jsc.hadoopConfiguration()
    path = hadoop.fs.Path(uri)
    stream = path.getFileSystem(conf).open(path)
    try:
        codec = hadoop.io.compress.CompressionCodecFactory(conf).getCodec(path)
        plain = codec.createInputStream(stream) if codec is not None else stream
        bounded = commons.input.BoundedInputStream(plain, _HEADER_BYTES)
        return str(commons.IOUtils.toString(bounded, "UTF-8")).removeprefix("\ufeff")
    finally:
        stream.close()


def _has_line_breaks_in_quotes(spark: SparkSession, paths: list[str]) -> bool:
    """Whether some line holds an odd number of quotes, so that a record may go on in the next line.

    Only then is the slower reading needed, in which one task reads a whole file.
    """
    quotes = F.length("value") - F.length(F.replace("value", F.lit('"'), F.lit("")))
    return not spark.read.text(paths).where(quotes % 2 == 1).isEmpty()


def _refuse_swallowed_rows(frame: DataFrame, header: list[str], mapped: dict[str, str], delimiter: str) -> None:
    """InputError if a field holds whole rows: a quote that is not closed takes all up to the next one.

    A line within a field is taken for a row if it has the header's fields, and numbers where the position should be.
    """

    def is_row(line: Column) -> Column:
        fields = F.split(line, re.escape(delimiter))
        position = [F.get(fields, F.lit(header.index(mapped[name]))) for name in ("lat", "lon")]
        numbers = [F.coalesce(text.rlike(r'^[ "]*[+-]?[0-9.]+[ "]*$'), F.lit(False)) for text in position]
        return (F.size(fields) == len(header)) & numbers[0] & numbers[1]

    fields = [*(f"_{k}" for k in range(len(header))), MALFORMED]
    whole = F.concat_ws(delimiter, *(f"_{k}" for k in range(len(header))))
    swallowed = F.lit(False)
    for name in fields:
        lines = F.split(F.col(name), r"\r\n|\r|\n")
        within = F.slice(lines, 2, F.greatest(F.size(lines), F.lit(1)))
        swallowed |= F.coalesce(F.exists(within, is_row), F.lit(False))
    begins = F.substring(F.coalesce(F.col(MALFORMED), whole), 1, 60)
    first = frame.where(swallowed).select(begins, _input_uri()).first()
    if first is not None:
        raise InputError(
            f"a quote is not closed: a field holds whole rows; its record begins with {first[0]!r}",
            where=first[1],
            hint='close the quote, or write a quote within a field twice ("")',
        )


def _parquet_schema(spark: SparkSession, uri: str) -> StructType:
    try:
        return spark.read.parquet(literal(uri)).schema
    except AnalysisException as error:
        raise InputError(f"unreadable as Parquet: {str(error)[:300]}", where=uri) from error
    except Py4JJavaError as error:
        if "is not a Parquet file" not in str(error):
            raise  # the store's own failures are told apart elsewhere
        raise InputError("not a Parquet file, or cut off before its end", where=uri) from None


def _check_type(ours: str, theirs: str, kind: DataType, uri: str, key: str) -> None:
    fault = ""
    if isinstance(kind, ArrayType | MapType | StructType | BinaryType | BooleanType | NullType):
        fault = "is no text, number or time"
    elif ours == "image_id" and (isinstance(kind, FloatType | DoubleType) or _has_fraction(kind)):
        fault = "cannot hold ids: it loses digits beyond 2^53"
    if fault:
        raise InputError(
            f"{key}.columns.{ours}: column {theirs!r} of type {kind.simpleString()} {fault}",
            where=uri,
            hint="store it as string" if ours == "image_id" else "map another column",
        )


def _has_fraction(kind: DataType) -> bool:
    return isinstance(kind, DecimalType) and kind.scale > 0


def _as_text(ours: str, theirs: str, kind: DataType) -> Column:
    column = F.col("`" + theirs.replace("`", "``") + "`")
    if ours == "captured_at" and isinstance(kind, FloatType | DoubleType):
        column = column.cast("decimal(20,3)")  # a double's text is 1.43E12, which is no epoch to read
    return column.cast("string")
