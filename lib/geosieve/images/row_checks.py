"""Parse and check rows of coordinate lists by Spark SQL expressions only (millions of rows per minute and core).

A row that cannot be used gets an `error_class`; a usable row with a doubtful value gets a warning:

| error_class | the row |
|---|---|
| malformed_row | has a field count that differs from the header |
| missing_id | has no id |
| missing_position | has no latitude or no longitude (empty, or a placeholder word) |
| decimal_comma | writes numbers as 48,85 |
| not_a_number | has a latitude or longitude that is no decimal number |
| lat_out_of_range | has a latitude outside of [-90, 90] |
| lon_out_of_range | has a longitude outside of [-180, 180] |
| null_island | lies at exactly (0, 0), which stands for "unknown" |
| duplicate_id | has the id of another accepted row |

Warnings: `bad_time` and `bad_size` (the value is not usable and becomes null).

Many programs write words such as `nan`, `\\N` or `None` for missing values. The words in WORDS_FOR_NOTHING count as
missing in every column except the id. Otherwise an author `None` would merge thousands of strangers into one person,
whose images are grouped together. An id is always required, and `none` is an ordinary id.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pyspark.sql import DataFrame, Row, Window
from pyspark.sql import functions as F

from geosieve.images.coordinate_lists import INPUT_URI, MALFORMED, TEXT_COLUMNS
from geosieve.images.nothing import NO_DATE, NOTHING, WORDS_FOR_NOTHING
from geosieve.runtime.errors import InputError
from geosieve.runtime.sql import sql_text
from geosieve.tables.schemas import IMAGES

STAGE = "check_rows"

OPTIONAL = tuple(name for name in TEXT_COLUMNS if name not in ("image_id", "lat", "lon"))
"""Columns of a list that may be empty."""

_FAR = 100_000  # larger numbers suggest a unit other than degrees; placeholders such as -9999 stay below
_WEB_MERCATOR_M = 20_048_966.2  # its largest coordinate, at latitude 85.06
_COUNTED = {
    "numeric": "lat IS NOT NULL AND lon IS NOT NULL",
    "lat_like_lon": "abs(lat) > 90 AND abs(lat) <= 180 AND abs(lon) <= 90",
    "lon_beyond_90": "abs(lon) > 90",
    "lon_beyond_180": "abs(lat) <= 90 AND lon > 180 AND lon <= 360",
    "lon_negative": "lon < 0",
    "far": f"abs(lat) > {_FAR} OR abs(lon) > {_FAR}",
    "fractions": "lat % 1 != 0 OR lon % 1 != 0",
}
COORDINATE_COUNTS = [
    *(f"count_if({condition}) AS {name}" for name, condition in _COUNTED.items()),
    "max(greatest(abs(lat), abs(lon))) AS largest",
]
"""SQL aggregates over parsed positions, from which `refuse_other_coordinates` detects other units or orders."""

_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?$"
_DECIMAL_COMMA = r"^[+-]?[0-9]+,[0-9]+$"

# An epoch of 9 or 10 digits counts seconds (1973 to 2286); 3, 6 or 9 digits more make milli-, micro- or nanoseconds.
# A fraction is allowed: pandas writes an integer column with gaps as 1430000000000.0.
_EPOCH_S, _EPOCH_MS = r"^[0-9]{9,10}(\.[0-9]*)?$", r"^[0-9]{12,13}(\.[0-9]*)?$"
_EPOCH_US, _EPOCH_NS = r"^[0-9]{15,16}(\.[0-9]*)?$", r"^[0-9]{18,19}(\.[0-9]*)?$"
_WHOLE = r"^[0-9]{1,9}(\.0*)?$"
_ISO = r"^[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([ T].*)?$"
# The first photograph was taken in 1826. Besides, Spark's Parquet writer fails on years before 1582.
_YEARS = (1826, 2099)

_NO_DEGREES = "not degrees; metres of a projection, or degrees times 10,000,000 (E7)?"

_POSITION = ("lat", "lon")
_OF_FILES = {
    **{"member": "string", "offset": "bigint", "length": "bigint", "compression": "string"},
    **{"orientation": "int", "content_sha256": "string", "perceptual_hash": "bigint"},
}
"""Columns of `images` that only bytes have, and lists do not; with their types."""
_QUERY = r"\?[^\s,;\"]*"
_QUOTE = "'"
_SHOWN = 60  # characters of a bad value in a message
_LONGEST_MESSAGE = 500


def check_rows(rows: DataFrame, eastward: bool = False, carried: Sequence[str] = ()) -> DataFrame:
    """Parse and check all rows, except for repeated ids, which `repeated_ids` and `refuse_repeats` handle.

    `rows` have TEXT_COLUMNS, MALFORMED and INPUT_URI as text. Returns the columns of `images` plus `error_class` and
    `message` (both null for a good row), `input_uri` and NOTHING. Refused rows keep the parsed `lat` and `lon` too.
    `eastward`: longitudes in the list run from 0 to 360. `carried`: other columns of `rows`, which stay as they are.
    """
    return _typed(_without_words(parse_positions(rows, eastward, carried)), carried)


def is_word_for_nothing(column: str) -> str:
    """SQL: whether a text column without surrounding blanks has one of WORDS_FOR_NOTHING; false for null."""
    return f"coalesce(lower({column}) IN ({', '.join(map(sql_text, WORDS_FOR_NOTHING))}), false)"


def parse_positions(rows: DataFrame, eastward: bool = False, carried: Sequence[str] = ()) -> DataFrame:
    """Parse and check the positions of `rows`, which have image_id, lat, lon, MALFORMED, INPUT_URI and other texts.

    Strips blanks from all texts, makes `lat` and `lon` numbers (degrees; null if unreadable), keeps their texts as
    `lat_text` and `lon_text`, and adds `error`, struct(error_class, message), null for a good row. With `eastward`,
    longitudes of good rows are converted from [0, 360] to [-180, 180].
    """
    kept = (MALFORMED, INPUT_URI, *carried)
    texts = [name for name in rows.columns if name not in kept]
    tidy = rows.selectExpr(*(f"{_tidy(name)} AS {name}" for name in texts), *kept)
    others = [name for name in tidy.columns if name not in ("lat", "lon")]
    numbers = [f"CASE WHEN {_matches(name, _NUMBER)} THEN cast({name} AS double) END AS {name}" for name in _POSITION]
    parsed = tidy.selectExpr(*others, *(f"{name} AS {name}_text" for name in _POSITION), *numbers)
    checked = parsed.selectExpr("*", f"{_error(eastward)} AS error")
    if eastward:
        checked = checked.withColumn("lon", F.expr("if(error IS NULL AND lon > 180, lon - 360, lon)"))
    return checked


def rejects(checked: DataFrame, stage: str) -> DataFrame:
    """Rows of the table `rejects` for the rows that have an error class."""
    return checked.where("error_class IS NOT NULL").select(
        F.col("image_id").alias("id"),
        F.col(INPUT_URI).alias("uri"),
        F.lit(stage).alias("stage"),
        "error_class",
        F.coalesce("message", F.lit("")).alias("message"),
    )


def repeated_ids(checked: DataFrame) -> DataFrame:
    """The ids (`image_id`) that occur in several good rows. Refused rows are ignored."""
    return checked.where("error_class IS NULL").groupBy("image_id").count().where("count > 1").select("image_id")


def refuse_other_coordinates(outcomes: Iterable[Row], swap_hint: str, eastward_hint: str) -> None:
    """InputError if a file's numbers are clearly not latitude and longitude in degrees, or are swapped or eastward.

    `outcomes`: rows with `input_uri` and COORDINATE_COUNTS; a file may have several. The hints say what to do about
    swapped columns and about longitudes of 0 to 360 degrees.
    """
    by_uri: dict[str, list[Row]] = {}
    for row in outcomes:
        by_uri.setdefault(row["input_uri"], []).append(row)
    for uri, mine in sorted(by_uri.items()):
        n = {name: sum(row[name] for row in mine) for name in _COUNTED}
        numeric, suspect, far, beyond = n["numeric"], n["lat_like_lon"], n["far"], n["lon_beyond_180"]
        if far and far * 2 >= numeric:
            largest = max(row["largest"] for row in mine if row["largest"] is not None)
            unit, hint = _other_unit(largest, n["fractions"] * 2 > numeric)
            raise InputError(f"{far} of {numeric} positions are {unit}: up to {largest:,.15g}", where=uri, hint=hint)
        # In a swapped file, no "longitude" exceeds 90, but many "latitudes" do.
        if suspect >= 2 and suspect >= numeric / 20 and not n["lon_beyond_90"]:
            raise InputError(
                f"latitude and longitude are swapped: {suspect} of {numeric} latitudes exceed 90 and no longitude does",
                where=uri,
                hint=swap_hint,
            )
        # If some longitudes are negative, those above 180 are errors of single rows.
        if beyond >= 2 and beyond >= numeric / 20 and not n["lon_negative"]:
            raise InputError(
                f"longitudes of 0 to 360: {beyond} of {numeric} exceed 180 and none is negative",
                where=uri,
                hint=eastward_hint,
            )


def _other_unit(largest: float, has_fractions: bool) -> tuple[str, str]:
    """(unit, hint): what coordinates other than degrees probably are, and how to convert them."""
    if largest <= _WEB_MERCATOR_M:
        return "metres of a projection, such as Web Mercator (EPSG:3857)", "transform them to EPSG:4326"
    if largest <= 180e7 and not has_fractions:
        return "integers of degrees times 10,000,000 (E7)", "divide them by 1e7"
    return "no degrees", "give them in degrees, EPSG:4326"


def refuse_repeats(checked: DataFrame, repeated: DataFrame) -> DataFrame:
    """Set the error duplicate_id on all good rows of a repeated id except one.

    `checked`: rows as from `check_rows`; `repeated`: as from `repeated_ids`. The row that sorts first by its content is
    kept, so that the result does not depend on the order or partitioning of the rows.
    """
    good, refused = checked.where("error_class IS NULL"), checked.where("error_class IS NOT NULL")
    content = [F.col(column.name) for column in IMAGES.columns]
    first = F.row_number().over(Window.partitionBy("image_id").orderBy(*content, INPUT_URI)) == 1
    message = F.lit("another row has this id; the one that sorts first by its content is kept")
    numbered = good.join(repeated, "image_id", "left_semi").withColumn("first", first)
    settled = numbered.withColumns(
        {
            "error_class": F.when(~F.col("first"), F.lit("duplicate_id")),
            "message": F.when(~F.col("first"), message),
        }
    ).drop("first")
    return good.join(repeated, "image_id", "left_anti").unionByName(settled).unionByName(refused)


def _tidy(column: str) -> str:
    """SQL: a text without surrounding blanks; null if nothing is left."""
    blanks = sql_text(" \t\r\n\u00a0")
    return f"nullif(btrim({column}, {blanks}), '')"


def _matches(column: str, pattern: str) -> str:
    """SQL: whether a text contains a match of a regular expression; null for null."""
    return f"{column} RLIKE {sql_text(pattern)}"


def _error(eastward: bool) -> str:
    """SQL: struct(error_class, message) of the first check that a row fails; null if it passes all checks."""
    absent = " OR ".join(f"{text} IS NULL OR {is_word_for_nothing(text)}" for text in ("lat_text", "lon_text"))
    commas = " OR ".join(_matches(text, _DECIMAL_COMMA) for text in ("lat_text", "lon_text"))
    # Query strings are cut out, because they may be signatures.
    malformed = f"regexp_replace({MALFORMED}, {sql_text(_QUERY)}, '?…')"
    far = _position(f"{_NO_DEGREES}: ")
    swapped = _quote("latitudes lie in [-90, 90]; are latitude and longitude swapped? latitude ", "lat_text")
    checks = [
        (f"{MALFORMED} IS NOT NULL", "malformed_row", _quote("field count differs from the header: ", malformed, 300)),
        ("image_id IS NULL", "missing_id", "'the row has no id'"),
        (absent, "missing_position", _position("no position: ")),
        (commas, "decimal_comma", _position("write the number with a decimal point: ")),
        ("lat IS NULL OR lon IS NULL", "not_a_number", _position("not a decimal number of degrees: ")),
        (f"abs(lat) > {_FAR}", "lat_out_of_range", far),
        ("abs(lat) > 90", "lat_out_of_range", swapped),
        (f"abs(lon) > {_FAR}", "lon_out_of_range", far),
        *((fails, "lon_out_of_range", message) for fails, message in _longitude_checks(eastward)),
        ("lat = 0 AND lon = 0", "null_island", "'position (0, 0) stands for an unknown one'"),
    ]
    cases = " ".join(
        f"WHEN {fails} THEN named_struct('error_class', '{error_class}', "
        f"'message', substring({message}, 1, {_LONGEST_MESSAGE}))"
        for fails, error_class, message in checks
    )
    return f"CASE {cases} END"


def _longitude_checks(eastward: bool) -> list[tuple[str, str]]:
    """Checks of the range of longitudes, in SQL: (condition of failure, message)."""
    if eastward:
        return [("lon < 0 OR lon > 360", _quote("longitudes: 0..360, but there is longitude ", "lon_text"))]
    hint = "longitudes lie in [-180, 180]; of 0..360 degrees (source.longitudes) subtract 360 above 180: longitude "
    return [
        ("lon > 180 AND lon <= 360", _quote(hint, "lon_text")),
        ("abs(lon) > 180", _quote("longitudes lie in [-180, 180]: longitude ", "lon_text")),
    ]


def _quote(before: str, value: str, shown: int = _SHOWN) -> str:
    """SQL: a text, followed by the first characters of a value in quotes."""
    return f"concat({sql_text(before + _QUOTE)}, coalesce(substring({value}, 1, {shown}), ''), {sql_text(_QUOTE)})"


def _position(before: str) -> str:
    """SQL: a text, followed by the row's latitude and longitude as they were written."""
    return f"concat({_quote(before + 'latitude ', 'lat_text')}, {_quote(', longitude ', 'lon_text')})"


def _without_words(rows: DataFrame) -> DataFrame:
    """Replace placeholder words by null in all optional columns, and list these columns in NOTHING."""
    words = {name: is_word_for_nothing(name) for name in OPTIONAL}
    words["captured_at"] += f" OR coalesce({_matches('captured_at', NO_DATE)}, false)"
    nothing = ", ".join(f"CASE WHEN {word} THEN '{name}' END" for name, word in words.items())
    cleaned = (f"CASE WHEN NOT ({word}) THEN {name} END AS {name}" for name, word in words.items())
    others = (name for name in rows.columns if name not in words)
    return rows.selectExpr(*others, *cleaned, f"array_compact(array({nothing})) AS {NOTHING}")


def _typed(rows: DataFrame, carried: Sequence[str]) -> DataFrame:
    """Parse times and sizes, add warnings, and select the columns that `check_rows` returns."""
    parsed = {"captured_at": _time("captured_at"), "width": _pixels("width"), "height": _pixels("height")}
    doubts = (_doubt(name, code) for name, code in zip(parsed, ("bad_time", "bad_size", "bad_size"), strict=True))
    made = {
        **{name: f"{name}_parsed" for name in parsed},
        **{name: f"cast(NULL AS {kind})" for name, kind in _OF_FILES.items()},
        "warnings": f"array_compact(array({', '.join(doubts)}))",
        "error_class": "error.error_class",
        "message": "error.message",
    }
    columns = [*(column.name for column in IMAGES.columns), "error_class", "message", INPUT_URI, NOTHING, *carried]
    with_parsed = rows.selectExpr("*", *(f"{sql} AS {name}_parsed" for name, sql in parsed.items()))
    return with_parsed.selectExpr(*(f"{made.get(name, name)} AS {name}" for name in columns))


def _time(column: str) -> str:
    """SQL: a text as a timestamp: an epoch or an ISO 8601 date; null if unreadable or outside of `_YEARS`."""
    whole = f"cast(substring_index({column}, '.', 1) AS bigint)"
    forms = {
        _EPOCH_S: f"timestamp_seconds(cast({column} AS double))",
        _EPOCH_MS: f"timestamp_seconds(cast({column} AS double) / 1000)",
        _EPOCH_US: f"timestamp_micros({whole})",
        _EPOCH_NS: f"timestamp_micros(cast(floor(cast({whole} AS decimal(19,0)) / 1000) AS bigint))",
        _ISO: f"try_to_timestamp({column})",
    }
    cases = " ".join(f"WHEN {_matches(column, pattern)} THEN {sql}" for pattern, sql in forms.items())
    first, last = _YEARS
    return f"CASE WHEN year(CASE {cases} END) BETWEEN {first} AND {last} THEN CASE {cases} END END"


def _pixels(column: str) -> str:
    """SQL: a text as a positive integer; null if it is none."""
    return f"CASE WHEN {_matches(column, _WHOLE)} THEN nullif(cast(cast({column} AS double) AS int), 0) END"


def _doubt(column: str, code: str) -> str:
    """SQL: struct(code, message), a warning if a text could not be parsed; else null."""
    message = _quote(f"{column} is not usable: ", column)
    fails = f"{column} IS NOT NULL AND {column}_parsed IS NULL"
    return f"CASE WHEN {fails} THEN named_struct('code', '{code}', 'message', {message}) END"
