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

from collections.abc import Iterable

from pyspark.sql import Column, DataFrame, Row, Window
from pyspark.sql import functions as F

from geosieve.images.coordinate_lists import INPUT_URI, MALFORMED, TEXT_COLUMNS
from geosieve.images.nothing import NO_DATE, NOTHING, WORDS_FOR_NOTHING
from geosieve.runtime.errors import InputError
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
_ISO = r"^[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([ T].*)?$"
# The first photograph was taken in 1826. Besides, Spark's Parquet writer fails on years before 1582.
_YEARS = (1826, 2099)

_NO_DEGREES = "not degrees; metres of a projection, or degrees times 10,000,000 (E7)?"

_SHOWN = 60  # characters of a bad value in a message
_LONGEST_MESSAGE = 500


def check_rows(rows: DataFrame, eastward: bool = False) -> DataFrame:
    """Parse and check all rows, except for repeated ids, which `repeated_ids` and `refuse_repeats` handle.

    `rows` have TEXT_COLUMNS, MALFORMED and INPUT_URI as text. Returns the columns of `images` plus `error_class` and
    `message` (both null for a good row), `input_uri` and NOTHING. Refused rows keep the parsed `lat` and `lon` too.
    `eastward`: longitudes in the list run from 0 to 360.
    """
    return _typed(_without_words(parse_positions(rows, eastward)))


def is_word_for_nothing(text: Column) -> Column:
    """Whether a text without surrounding blanks is one of WORDS_FOR_NOTHING; false for null."""
    return F.coalesce(F.lower(text).isin(*WORDS_FOR_NOTHING), F.lit(False))


def parse_positions(rows: DataFrame, eastward: bool = False) -> DataFrame:
    """Parse and check the positions of `rows`, which have image_id, lat, lon, MALFORMED, INPUT_URI and other texts.

    Strips blanks from all texts, makes `lat` and `lon` numbers (degrees; null if unreadable), keeps their texts as
    `lat_text` and `lon_text`, and adds `error`, struct(error_class, message), null for a good row. With `eastward`,
    longitudes of good rows are converted from [0, 360] to [-180, 180].
    """
    texts = [name for name in rows.columns if name not in (MALFORMED, INPUT_URI)]
    tidy = rows.select(*(_tidy(F.col(name)).alias(name) for name in texts), MALFORMED, INPUT_URI)
    parsed = tidy.withColumns({"lat_text": F.col("lat"), "lon_text": F.col("lon")}).withColumns(
        {"lat": _number("lat"), "lon": _number("lon")}
    )
    checked = parsed.withColumn("error", _error(eastward))
    if eastward:
        wrapped = F.when(F.col("lon") > 180, F.col("lon") - 360).otherwise(F.col("lon"))
        checked = checked.withColumn("lon", F.when(F.col("error").isNull(), wrapped).otherwise(F.col("lon")))
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


def _tidy(text: Column) -> Column:
    """A text without surrounding blanks; null if nothing is left."""
    return F.nullif(F.btrim(text, F.lit(" \t\r\n\u00a0")), F.lit(""))


def _number(name: str) -> Column:
    """A text column as a double; null if it is no decimal number."""
    return F.when(F.col(name).rlike(_NUMBER), F.col(name).cast("double"))


def _error(eastward: bool) -> Column:
    """struct(error_class, message) of the first check that a row fails; null if it passes all checks."""
    lat, lon, lat_text, lon_text = (F.col(name) for name in ("lat", "lon", "lat_text", "lon_text"))
    absent = [text.isNull() | is_word_for_nothing(text) for text in (lat_text, lon_text)]
    commas = [text.rlike(_DECIMAL_COMMA) for text in (lat_text, lon_text)]
    checks = [
        (
            F.col(MALFORMED).isNotNull(),
            "malformed_row",
            # Query strings are cut out, because they may be signatures.
            _quote("the row has not the header's fields: ", F.regexp_replace(MALFORMED, r"\?[^\s,;\"]*", "?…"), 300),
        ),
        (F.col("image_id").isNull(), "missing_id", F.lit("the row has no id")),
        (absent[0] | absent[1], "missing_position", _position("no position: ")),
        (commas[0] | commas[1], "decimal_comma", _position("write the number with a decimal point: ")),
        (lat.isNull() | lon.isNull(), "not_a_number", _position("not a decimal number of degrees: ")),
        (
            F.abs(lat) > 90,
            "lat_out_of_range",
            F.when(F.abs(lat) > _FAR, _position(f"{_NO_DEGREES}: ")).otherwise(
                _quote("latitudes lie in [-90, 90]; are latitude and longitude swapped? latitude ", lat_text)
            ),
        ),
        (F.abs(lon) > _FAR, "lon_out_of_range", _position(f"{_NO_DEGREES}: ")),
        *_longitude_checks(lon, lon_text, eastward),
        ((lat == 0) & (lon == 0), "null_island", F.lit("position (0, 0) stands for an unknown one")),
    ]
    return F.coalesce(*(F.when(fails, _fault(error_class, message)) for fails, error_class, message in checks))


def _longitude_checks(lon: Column, text: Column, eastward: bool) -> list[tuple[Column, str, Column]]:
    """Checks of the range of longitudes: (condition of failure, error class, message)."""
    error_class = "lon_out_of_range"
    if eastward:
        return [((lon < 0) | (lon > 360), error_class, _quote("longitudes: 0..360, but there is longitude ", text))]
    hint = "longitudes lie in [-180, 180]; of 0..360 degrees (source.longitudes) subtract 360 above 180: longitude "
    return [
        ((lon > 180) & (lon <= 360), error_class, _quote(hint, text)),
        (F.abs(lon) > 180, error_class, _quote("longitudes lie in [-180, 180]: longitude ", text)),
    ]


def _fault(error_class: str, message: Column) -> Column:
    return F.struct(F.lit(error_class).alias("error_class"), F.substring(message, 1, _LONGEST_MESSAGE).alias("message"))


def _quote(before: str, value: Column, shown: int = _SHOWN) -> Column:
    """A text, followed by the first characters of a value in quotes."""
    return F.concat(F.lit(before), F.lit("'"), F.coalesce(F.substring(value, 1, shown), F.lit("")), F.lit("'"))


def _position(before: str) -> Column:
    """A text, followed by the row's latitude and longitude as they were written."""
    return F.concat(_quote(before + "latitude ", F.col("lat_text")), _quote(", longitude ", F.col("lon_text")))


def _without_words(rows: DataFrame) -> DataFrame:
    """Replace placeholder words by null in all optional columns, and list these columns in NOTHING."""
    words = {name: is_word_for_nothing(F.col(name)) for name in OPTIONAL}
    words["captured_at"] |= F.coalesce(F.col("captured_at").rlike(NO_DATE), F.lit(False))
    nothing = F.array_compact(F.array(*(F.when(word, F.lit(name)) for name, word in words.items())))
    cleaned = {name: F.when(~word, F.col(name)) for name, word in words.items()}
    return rows.withColumns({**cleaned, NOTHING: nothing})


def _typed(rows: DataFrame) -> DataFrame:
    """Parse times and sizes, add warnings, and select the columns that `check_rows` returns."""
    captured_at, width, height = _time(F.col("captured_at")), _pixels(F.col("width")), _pixels(F.col("height"))
    doubts = F.array(
        _doubt(captured_at, "bad_time", "captured_at"),
        _doubt(width, "bad_size", "width"),
        _doubt(height, "bad_size", "height"),
    )
    columns = {
        "captured_at": captured_at,
        "width": width,
        "height": height,
        "orientation": F.lit(None).cast("int"),
        "content_sha256": F.lit(None).cast("string"),
        "warnings": F.array_compact(doubts),
        "error_class": F.col("error.error_class"),
        "message": F.col("error.message"),
    }
    return rows.withColumns(columns).select(
        *(column.name for column in IMAGES.columns), "error_class", "message", INPUT_URI, NOTHING
    )


def _time(text: Column) -> Column:
    """A text as a timestamp: an epoch or an ISO 8601 date; null if unreadable or outside of `_YEARS`."""
    whole = F.substring_index(text, ".", 1).cast("bigint")
    time = (
        F.when(text.rlike(_EPOCH_S), F.timestamp_seconds(text.cast("double")))
        .when(text.rlike(_EPOCH_MS), F.timestamp_seconds(text.cast("double") / 1000))
        .when(text.rlike(_EPOCH_US), F.timestamp_micros(whole))
        .when(text.rlike(_EPOCH_NS), F.timestamp_micros(F.floor(whole.cast("decimal(19,0)") / 1000).cast("bigint")))
        .when(text.rlike(_ISO), F.try_to_timestamp(text))
    )
    return F.when(F.year(time).between(*_YEARS), time)


def _pixels(text: Column) -> Column:
    """A text as a positive integer; null if it is none."""
    pixels = F.when(text.rlike(r"^[0-9]{1,9}(\.0*)?$"), text.cast("double").cast("int"))
    return F.when(pixels > 0, pixels)


def _doubt(parsed: Column, code: str, name: str) -> Column:
    """struct(code, message), a warning if column `name` has a text that could not be parsed; else null."""
    message = _quote(f"{name} is not usable: ", F.col(name))
    return F.when(
        F.col(name).isNotNull() & parsed.isNull(), F.struct(F.lit(code).alias("code"), message.alias("message"))
    )
