"""Open coordinate lists (CSV, Parquet) as rows of text, after checking the files and their columns.

Everything is read as text and parsed by `row_checks`. Spark's own type inference would turn `0012` into 12, `48,85`
into null, and a whole column into text because of one bad row.

Files with these faults are refused before rows are returned: nothing to read, an empty file, a compressed file that is
damaged or misnamed, bytes that are invalid in the encoding (Spark would replace them by U+FFFD, so that two ids could
become equal), a line too long for memory, a column that is missing or occurs twice, files whose headers differ, and a
Parquet type that cannot hold the value.
"""

from __future__ import annotations

import csv
import io
import json
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import unquote

from py4j.protocol import Py4JJavaError
from pyspark.errors import AnalysisException, PySparkException
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
from geosieve.runtime.errors import ConfigError, InputError
from geosieve.runtime.files import FileInfo, Files, literal
from geosieve.runtime.names import nearest
from geosieve.runtime.sql import sql_name

T = TypeVar("T")

TEXT_COLUMNS = tuple(Columns.model_fields)
MALFORMED, INPUT_URI = "malformed", "input_uri"
IMAGE, ROW = "image", "row_in_file"
"""The column of records that holds an image's bytes, and a column for the number of a row in its file, from 0."""

Names = Iterable[tuple[str, str | None]]
"""Pairs of our column name and the list's name for it, or None if the list has no such column."""

_HEADER_BYTES = 1 << 16  # bytes read for the header; a longer first line is no header
_MOST_FIELDS = 1 << 20  # a line with more fields ends the job; fewer surplus fields only make the row malformed
_HEADERS_AT_ONCE = 16  # requests to the store in flight while headers are compared
_LONGEST_LINE = 1 << 23
"""Maximum bytes of a line, and characters of a field. Without a limit, Spark reads any line into memory."""
_CODECS = {  # by the first bytes of a file
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zXZ": "xz",
    b"PK\x03\x04": "zip",
    b"PAR1": "Parquet",
}
_OF_NAMES = {".gz": "gzip", ".bz2": "bzip2", ".zst": "zstd"}
_BROKEN = re.compile(
    r"EOFException|ZipException|DataFormatException|not a gzip file|(?i:unexpected end of|incorrect header|invalid |"
    r"crc|bad block|stream header|corrupt|native \S+ library not)"
)
_TOO_LONG = re.compile(r"exceeds the maximum number of characters|Too many bytes before newline|TextParsingException")
_NUMBER = re.compile(r"\s*[+-]?[0-9]*\.?[0-9]+\s*")


def find_files(spark: SparkSession, uri: str, key: str = "source") -> list[FileInfo]:
    """List the files that a path, a folder or a glob names.

    An existing path is taken literally even if it looks like a glob, e.g. `list [1].csv`. InputError if there is no
    file, if all are empty, or if Spark would skip one because its name starts with `_` or `.`.
    """
    files = Files(spark)
    found: list[FileInfo] = []
    for entry in files.named(uri):
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
    spark: SparkSession,
    columns: Names,
    delimiter: str,
    files: Sequence[FileInfo],
    key: str = "source",
    header: bool = True,
    encoding: str = "UTF-8",
) -> DataFrame:
    """Open CSV files as a frame of text columns.

    The columns are TEXT_COLUMNS (null where not mapped), any other mapped columns, MALFORMED (the raw row if its field
    count differs from the header, else null) and INPUT_URI. Without a header, columns are named by number, from 1.

    InputError names the file that cannot be used. ConfigError if Java does not know the encoding.
    """
    by_lines = has_ascii_lines(spark, encoding, key)
    with ThreadPoolExecutor(_HEADERS_AT_ONCE) as pool:
        headers = list(pool.map(lambda file: csv_header(spark, file.uri, delimiter, encoding), files))
        sizes = list(pool.map(lambda file: _plain_size(spark, file), files))
    if not header:
        headers = [[str(number + 1) for number in range(len(first))] for first in headers]
    for file, names in zip(files, headers, strict=True):
        _check_mapped(columns, names, file.uri, key)
        if names != headers[0]:
            raise InputError(
                f"its header differs from that of {files[0].uri}: {_difference(headers[0], names)}",
                where=file.uri,
                hint="ingest the files as separate sources, or give them one header",
            )
    # Positions instead of names: Spark does not distinguish names such as `id` and `ID`.
    fields = [StructField(f"_{position}", StringType()) for position in range(len(headers[0]))]
    paths = [literal(file.uri) for file in files]
    breaks = not by_lines or _survey(spark, files, sizes, delimiter, encoding, key)
    frame = (
        spark.read.schema(StructType([*fields, StructField(MALFORMED, StringType())]))
        .option("header", header)
        .option("sep", delimiter)
        .option("escape", '"')
        .option("encoding", encoding)
        .option("columnNameOfCorruptRecord", MALFORMED)
        .option("columnPruning", False)  # with it, rows with too many or too few fields pass unnoticed
        .option("maxColumns", _MOST_FIELDS)
        .option("maxCharsPerColumn", _LONGEST_LINE)
        .option("multiLine", breaks)
        .csv(paths)
    )
    if not header:
        frame = frame.withColumn("_0", F.regexp_replace("_0", "^\ufeff", ""))
    if breaks:  # only in this mode, Spark reads a blank line as a row
        frame = frame.where(F.coalesce(F.btrim(MALFORMED, F.lit(" \t\r\n")) != "", F.lit(True)))
        _refuse_long_fields(lambda: _refuse_swallowed_rows(frame, headers[0], _mapped(columns), delimiter), files)
    if not by_lines:
        _refuse_replaced(frame, encoding, key)
    texts = {ours: F.col(f"_{headers[0].index(theirs)}") for ours, theirs in _mapped(columns).items()}
    return _rows(frame, texts, F.col(MALFORMED))


def open_parquet(spark: SparkSession, columns: Names, files: Sequence[FileInfo], key: str = "source") -> DataFrame:
    """Open Parquet files as a frame of text columns, as `open_csv` does; MALFORMED is always null.

    If a column of bytes is mapped to IMAGE, there is ROW, too; the bytes are not read.

    InputError names the file that is no Parquet file, whose mapped columns are missing, have an unsuitable type or
    differ in type from those of the first file, or whose texts are not UTF-8.
    """
    mapped = _mapped(columns)
    with ThreadPoolExecutor(_HEADERS_AT_ONCE) as pool:
        found = list(pool.map(lambda file: _parquet_schema(spark, file.uri, mapped.values()), files))
    _, schema, nanoseconds = found[0]
    for file, (names, own, own_nanoseconds) in zip(files, found, strict=True):
        _check_mapped(columns, names, file.uri, key)
        for ours, theirs in mapped.items():
            kind, first = own[theirs].dataType, schema[theirs].dataType
            _check_type(ours, theirs, kind, file.uri, key)
            if kind != first or (theirs in nanoseconds) != (theirs in own_nanoseconds):
                raise InputError(
                    f"column {theirs!r} is {kind.simpleString()} but {first.simpleString()} in {files[0].uri}",
                    where=file.uri,
                    hint="ingest the files as separate sources",
                )
    frame = spark.read.schema(schema).parquet(*(literal(file.uri) for file in files))
    _refuse_broken_texts(frame)
    texts = {
        ours: _as_text(ours, theirs, schema[theirs].dataType, theirs in nanoseconds)
        for ours, theirs in mapped.items()
        if ours != IMAGE
    }
    if IMAGE in mapped:
        texts[ROW] = F.col("_metadata.row_index")
    return _rows(frame, texts, F.lit(None).cast("string"))


def _rows(frame: DataFrame, texts: dict[str, Column], malformed: Column) -> DataFrame:
    """The columns that `open_csv` describes. `texts`: the mapped columns by our names."""
    nothing = F.lit(None).cast("string")
    columns = [text.alias(ours) for ours, text in {**dict.fromkeys(TEXT_COLUMNS, nothing), **texts}.items()]
    return frame.select(*columns, malformed.alias(MALFORMED), _input_uri().alias(INPUT_URI))


def with_row_numbers(rows: DataFrame, files: Sequence[FileInfo]) -> DataFrame:
    """Set `image_id` to the row's number in its file, from 1. `rows` come from `open_csv` or `open_parquet`.

    With several files, the file's path below their common folder comes before the number: `a/list.csv:12`.
    """
    # A task reads the rows of a block (a section of a file) one after the other, and monotonic ids are consecutive
    # within a task. So the first id and the row count of each block give the number of every row.
    placed = rows.withColumns({"_block": F.input_file_block_start(), "_place": F.monotonically_increasing_id()})
    blocks = (
        placed.groupBy(INPUT_URI, "_block").agg(F.min("_place").alias("first"), F.count("*").alias("rows")).collect()
    )
    folders = [posixpath.dirname(row[INPUT_URI]) for row in blocks]
    common = posixpath.commonpath(folders) if folders else ""
    starts, before, file = [], 0, None
    for row in sorted(blocks, key=lambda row: (row[INPUT_URI], row["_block"])):
        uri = row[INPUT_URI]
        before = before if uri == file else 0
        prefix = "" if len(files) == 1 else f"{posixpath.relpath(uri, common)}:"
        starts.append((uri, row["_block"], before + 1 - row["first"], prefix))
        before, file = before + row["rows"], uri
    schema = f"{INPUT_URI} string, _block bigint, _shift bigint, _prefix string"
    known = F.broadcast(rows.sparkSession.createDataFrame(starts, schema))
    number = F.concat("_prefix", (F.col("_place") + F.col("_shift")).cast("string"))
    numbered = placed.join(known, [INPUT_URI, "_block"]).withColumn("image_id", number)
    return numbered.select(*rows.columns)


def _input_uri() -> Column:
    """URI of the row's file as the store names it. Spark's `input_file_name` escapes it, e.g. a space as %20."""
    name = F.input_file_name()
    # Decoding takes a third of the time of reading a list, and most names need none.
    return F.when(name.contains("%"), F.url_decode(F.replace(name, F.lit("+"), F.lit("%2B")))).otherwise(name)


def _mapped(columns: Names) -> dict[str, str]:
    return {ours: theirs for ours, theirs in columns if theirs is not None}


def _check_mapped(columns: Names, header: Sequence[str], uri: str, key: str) -> None:
    """InputError unless every mapped column occurs exactly once in the header."""
    for ours, theirs in _mapped(columns).items():
        if header.count(theirs) == 1:
            continue
        if theirs in header:
            raise InputError(f"{key}.columns.{ours}: column {theirs!r} occurs {header.count(theirs)} times", where=uri)
        near = ", ".join(repr(name) for name in nearest(theirs, header))
        hint = f"nearest: {near}" if near else f"its columns: {', '.join(header)[:500]}"
        raise InputError(
            f"{key}.columns.{ours}: there is no column {theirs!r}", where=uri, hint=_cause(header, key) or hint
        )


def _cause(header: Sequence[str], key: str) -> str:
    """A hint if the header shows why a column was not found: wrong delimiter or no header. Else an empty text."""
    marks = [mark for mark in (";", "\t", "|", ",") if mark in header[0]]
    if len(header) == 1 and marks:
        mark = max(marks, key=header[0].count)
        return f"the header came as one column, {header[0][:60]!r}: set {key}.delimiter: {json.dumps(mark)}"
    if not all(name.isdigit() for name in header) and any(_NUMBER.fullmatch(name) for name in header):
        first = ", ".join(header)[:100]
        return f"the first line looks like data ({first}): if there is no header, set header: false, columns by number"
    return ""


def _difference(first: Sequence[str], other: Sequence[str]) -> str:
    """How a header differs from the first file's, as text."""
    lacks, adds = [n for n in first if n not in other], [n for n in other if n not in first]
    parts = [f"it lacks {', '.join(lacks)}"] if lacks else []
    parts += [f"it adds {', '.join(adds)}"] if adds else []
    return "; ".join(parts)[:500] or "the same columns in another order"


def csv_header(spark: SparkSession, uri: str, delimiter: str, encoding: str = "UTF-8") -> list[str]:
    """The names in a CSV file's first record. Reads at most _HEADER_BYTES; compressed files (.gz, .bz2) are unpacked.

    InputError if the file has no names, is damaged, or seems to be in another encoding.
    """
    text = _head(spark, uri, encoding)
    first = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), [])
    names = [name.strip() for name in first]
    if not any(names):
        raise InputError("empty file: it has no header line", where=uri)
    if "\0" in "".join(names):
        raise InputError(
            "its header holds NUL characters",
            where=uri,
            hint="if it is UTF-16, say so: encoding: UTF-16; else it is no text",
        )
    return names


def _head(spark: SparkSession, uri: str, encoding: str) -> str:
    """The first _HEADER_BYTES of a file, uncompressed and decoded, without a byte order mark."""
    # The driver's JVM reads it, because Files.read_text would fetch the whole file.
    jvm: Any = spark._jvm
    with _plain_stream(spark, uri) as stream:
        bounded = jvm.org.apache.commons.io.input.BoundedInputStream(stream, _HEADER_BYTES)
        head = bytes(jvm.org.apache.commons.io.IOUtils.toByteArray(bounded))
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) and not encoding.upper().startswith(("UTF-16", "UTF-32")):
        raise InputError("the file is UTF-16", where=uri, hint="say so: encoding: UTF-16")
    return str(jvm.java.lang.String(head, encoding)).removeprefix("\ufeff")


@contextmanager
def _plain_stream(spark: SparkSession, uri: str) -> Iterator[Any]:
    """Open a Java stream of a file's uncompressed content.

    InputError if the compression differs from what the name says, or the content is cut off or damaged.
    """
    jvm: Any = spark._jvm
    conf = spark._jsc.hadoopConfiguration()
    path = jvm.org.apache.hadoop.fs.Path(uri)
    store = path.getFileSystem(conf)
    codec = jvm.org.apache.hadoop.io.compress.CompressionCodecFactory(conf).getCodec(path)
    stream = store.open(path)
    try:
        begins = bytes(
            jvm.org.apache.commons.io.IOUtils.toByteArray(stream, min(6, store.getFileStatus(path).getLen()))
        )
        stream.seek(0)
        _check_compression(uri, begins, codec is not None)
        yield codec.createInputStream(stream) if codec is not None else stream
    except Py4JJavaError as error:
        if codec is None or not _BROKEN.search(str(error)):
            raise
        raise InputError(
            "the compressed file is cut off or damaged", where=uri, hint="copy it again; `gzip -t` tests it"
        ) from None
    finally:
        stream.close()


def _check_compression(uri: str, begins: bytes, is_decoded: bool) -> None:
    """InputError if a file's first bytes show another format than its name. `is_decoded`: Hadoop has a codec for it."""
    name = uri.rpartition("/")[2]
    content = next((kind for magic, kind in _CODECS.items() if begins.startswith(magic)), None)
    expected = next((kind for ending, kind in _OF_NAMES.items() if name.lower().endswith(ending)), None)
    if expected is not None and is_decoded and content != expected and begins:
        raise InputError(f"its name says {expected}, but its content is not", where=uri, hint="rename it")
    if content is not None and not is_decoded:
        ending = next((ending for ending, kind in _OF_NAMES.items() if kind == content), None)
        hint = f"rename it to {name}{ending}" if ending else "unpack it, or save it as CSV"
        hint = "set format: parquet" if content == "Parquet" else hint
        raise InputError(f"the file is {content}, not CSV", where=uri, hint=hint)


def _plain_size(spark: SparkSession, file: FileInfo) -> int:
    """Uncompressed size of a file in bytes. A compressed file is read to its end, which also detects damage."""
    if not file.name.lower().endswith(tuple(_OF_NAMES)):
        return file.size
    jvm: Any = spark._jvm
    with _plain_stream(spark, file.uri) as stream:
        return int(jvm.org.apache.commons.io.IOUtils.consume(stream))


def has_ascii_lines(spark: SparkSession, encoding: str, key: str = "source") -> bool:
    """Whether an encoding writes line ends, quotes and delimiters as in ASCII; UTF-16, UTF-32 and EBCDIC do not.

    ConfigError if Java does not know the encoding.
    """
    charsets: Any = spark._jvm.java.nio.charset.Charset  # type: ignore[union-attr]
    try:
        charset = charsets.forName(encoding)
    except (Py4JJavaError, PySparkException):
        known = [str(name) for name in charsets.availableCharsets().keySet()]
        near = nearest(encoding, known)
        raise ConfigError(
            f"Java knows no encoding {encoding!r}",
            where=f"{key}.encoding",
            hint=f"nearest: {', '.join(near)}" if near else "e.g. UTF-8, windows-1252, ISO-8859-1, UTF-16",
        ) from None
    sample = 'a0;,\t"\r\n'
    encoded = charset.encode(sample)
    return bytes(encoded.array())[: encoded.limit()] == sample.encode("ascii")


def _survey(
    spark: SparkSession, files: Sequence[FileInfo], sizes: Sequence[int], delimiter: str, encoding: str, key: str
) -> bool:
    """Scan all lines once. Returns whether any line has an odd number of quotes, so that a record may span lines.

    Only then is the slower mode needed, in which one task reads a whole file. InputError names the first file with
    bytes that are invalid in the encoding, with a line longer than _LONGEST_LINE or with more than _MOST_FIELDS fields.
    """
    value = F.col("value")
    long = F.octet_length(value) >= _MOST_FIELDS
    checks = {
        "odd": _count_of(value, '"') % 2 == 1,
        "alien": _is_alien(value, encoding),
        "many": F.when(long, _count_of(value, delimiter) >= _MOST_FIELDS).otherwise(False),
    }
    lines = _lines(spark, files)
    facts = _refuse_long_fields(
        lambda: (
            lines.groupBy(F.input_file_name().alias("uri"))
            .agg(
                *(F.max(check).alias(name) for name, check in checks.items()),
                F.count("*").alias("rows"),
                F.sum(F.octet_length(value)).alias("bytes"),
            )
            .collect()
        ),
        files,
    )
    by_uri = {_plain_uri(unquote(row["uri"])): row for row in facts}
    for file, size in zip(files, sizes, strict=True):
        row = by_uri.get(_plain_uri(file.uri))
        if row is None:
            rows, skipped = 0, size - 3
        else:
            rows, skipped = row["rows"], size - row["bytes"] - row["rows"]
            if row["many"]:
                raise InputError(f"a line has more than {_MOST_FIELDS:,} fields", where=file.uri)
            if row["alien"]:
                raise _not_of_encoding(spark, file.uri, encoding, key)
        # Bytes outside of the lines read: one more per CRLF, a byte order mark, and lines that were too long.
        if skipped > rows + 4 or (skipped >= _LONGEST_LINE and _skips_lines(spark, file, size)):
            raise _too_long(file.uri)
    return any(row["odd"] for row in facts)


def _lines(spark: SparkSession, files: Sequence[FileInfo], **options: str) -> DataFrame:
    """The lines of files, without decoding. Hadoop silently leaves out lines longer than _LONGEST_LINE."""
    reader = spark.read.option("mapreduce.input.linerecordreader.line.maxlength", _LONGEST_LINE).options(**options)
    return reader.text([literal(file.uri) for file in files])


def _skips_lines(spark: SparkSession, file: FileInfo, size: int) -> bool:
    """Whether a file has lines that are too long. Only LF ends a line here, so that the CR of CRLF is counted too."""
    found = _lines(spark, [file], lineSep="\n").agg(F.count("*"), F.sum(F.octet_length("value"))).first()
    return found is not None and size - (found[1] or 0) - found[0] >= _LONGEST_LINE


def _count_of(text: Column, mark: str) -> Column:
    """How often an ASCII character occurs in a text."""
    return F.octet_length(text) - F.octet_length(F.replace(text, F.lit(mark), F.lit("")))


def _is_alien(line: Column, encoding: str) -> Column:
    """Whether a line has bytes that are invalid in the encoding, which decoding replaces by U+FFFD."""
    decoded = F.decode(line.cast("binary"), encoding)
    if encoding.upper().replace("_", "-") in ("UTF-8", "UTF8"):
        return decoded != line  # U+FFFD may stand in the file itself
    return decoded.contains("\ufffd")


def _not_of_encoding(spark: SparkSession, uri: str, encoding: str, key: str) -> InputError:
    """The error for a file with invalid bytes; it quotes the first such line."""
    # One partition, so that ids are line numbers. This is slow, but only a file that is refused is read this way.
    lines = spark.read.text(literal(uri)).coalesce(1).withColumn("line", F.monotonically_increasing_id() + 1)
    first = lines.where(_is_alien(F.col("value"), encoding)).agg(F.min_by("line", "line"), F.min_by("value", "line"))
    number, text = first.select(
        F.col(first.columns[0]), F.decode(F.col(first.columns[1]).cast("binary"), encoding)
    ).collect()[0]
    return InputError(
        f"line {number} holds bytes that are not {encoding}: {text[:60]!r}",
        where=uri,
        hint=f"name the encoding, e.g. {key}.encoding: windows-1252, or convert the file to UTF-8",
    )


def _refuse_replaced(frame: DataFrame, encoding: str, key: str) -> None:
    """InputError if a field contains U+FFFD, which replaces bytes that are invalid in the encoding."""
    fields = F.concat_ws(" ", *(name for name in frame.columns))
    first = frame.where(fields.contains("\ufffd")).select(F.substring(fields, 1, 60), _input_uri()).first()
    if first is not None:
        raise InputError(
            f"a row holds characters that are not {encoding}: {first[0]!r}",
            where=first[1],
            hint=f"check {key}.encoding",
        )


def _refuse_broken_texts(frame: DataFrame) -> None:
    """InputError if a text of a Parquet file is not UTF-8. The format requires UTF-8, but readers do not check it."""
    texts = [field.name for field in frame.schema if isinstance(field.dataType, StringType)]
    alien = [_is_alien(F.col(sql_name(name)), "UTF-8") for name in texts]
    if not alien:
        return
    columns = F.array_compact(F.array(*(F.when(bad, F.lit(name)) for bad, name in zip(alien, texts, strict=True))))
    first = frame.select(columns.alias("found"), _input_uri().alias("uri")).where("size(found) > 0").first()
    if first is not None:
        raise InputError(
            f"column {first['found'][0]!r} holds text that is not UTF-8",
            where=first["uri"],
            hint="write the file again with its texts decoded by their encoding",
        )


def _refuse_long_fields(read: Callable[[], T], files: Sequence[FileInfo]) -> T:
    """The result of `read`; InputError if Spark's reader reports a line or field that is too long."""
    try:
        return read()
    except (Py4JJavaError, PySparkException) as error:
        text = str(error)
        if not _TOO_LONG.search(text):
            raise
        named = re.search(r"[Ee]rror while reading file ([^\s]+?)\.?\s", text)
        raise _too_long(_plain_uri(unquote(named[1])) if named else ", ".join(file.uri for file in files[:3])) from None


def _too_long(uri: str) -> InputError:
    return InputError(
        f"a line or field is longer than {_LONGEST_LINE >> 20} MiB",
        where=uri,
        hint="close the quote that takes all that follows; a line ends by LF, CRLF or CR",
    )


def _plain_uri(uri: str) -> str:
    """A URI with one slash after `file:`, since Spark and Hadoop write local paths with one or three."""
    return re.sub(r"^file:/+", "file:/", uri)


def _refuse_swallowed_rows(frame: DataFrame, header: list[str], mapped: dict[str, str], delimiter: str) -> None:
    """InputError if a field contains whole rows: a quote that is not closed extends to the next quote.

    A line within a field counts as a row if its field count equals the header's and it has numbers as latitude and
    longitude.
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


def _parquet_schema(spark: SparkSession, uri: str, wanted: Iterable[str]) -> tuple[list[str], StructType, set[str]]:
    """Names of all columns, types of the wanted columns that exist, and which of these are times in nanoseconds.

    They are read from the file's footer, so that an unreadable type of a column that is not wanted does no harm.
    InputError if the file is no Parquet file or Spark cannot read a wanted type.
    """
    jvm: Any = spark._jvm
    parquet = jvm.org.apache.parquet
    path = jvm.org.apache.hadoop.fs.Path(uri)
    try:
        reader = parquet.hadoop.ParquetFileReader.open(
            parquet.hadoop.util.HadoopInputFile.fromPath(path, spark._jsc.hadoopConfiguration())
        )
    except Py4JJavaError as error:
        if "is not a Parquet file" not in str(error):
            raise  # failures of the store are classified elsewhere
        raise InputError("not a Parquet file, or cut off before its end", where=uri) from None
    try:
        fields = list(reader.getFooter().getFileMetaData().getSchema().getFields())
    finally:
        reader.close()
    by_name = {str(field.getName()): field for field in fields}
    mapped = [by_name[name] for name in dict.fromkeys(wanted) if name in by_name]
    conf = spark._jsparkSession.sessionState().conf()
    converter = jvm.org.apache.spark.sql.execution.datasources.parquet.ParquetToSparkSchemaConverter(conf)
    try:
        converted = converter.convert(parquet.schema.MessageType("wanted", mapped))
    except AnalysisException as error:
        raise InputError(f"a type that cannot be read: {str(error)[:300]}", where=uri) from error
    nanoseconds = {
        str(field.getName()) for field in mapped if "TIMESTAMP(NANOS" in str(field.getLogicalTypeAnnotation())
    }
    return [str(field.getName()) for field in fields], StructType.fromJson(json.loads(converted.json())), nanoseconds


def _check_type(ours: str, theirs: str, kind: DataType, uri: str, key: str) -> None:
    """InputError if a column's type cannot hold the values of our column."""
    fault = ""
    if ours == IMAGE:
        fault = "" if isinstance(kind, BinaryType) else "holds no bytes"
    elif isinstance(kind, ArrayType | MapType | StructType | BinaryType | BooleanType | NullType):
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


def _as_text(ours: str, theirs: str, kind: DataType, is_nanoseconds: bool) -> Column:
    """A Parquet column as text that `row_checks` can parse."""
    name = sql_name(theirs)
    column = F.col(name)
    if is_nanoseconds:
        column = F.expr(f"timestamp_micros({name} div 1000)")
    elif ours == "captured_at" and isinstance(kind, FloatType | DoubleType):
        column = column.cast("decimal(20,3)")  # as text, a double would be 1.43E12, which is not read as an epoch
    return column.cast("string")
