"""Parsing and checking rows of coordinate lists, in Spark SQL expressions only (millions of rows a minute a core).

A row that cannot be used gets an `error_class`; one that is usable with a doubt gets a warning:

| error_class | the row |
|---|---|
| malformed_row | has not the fields of the header |
| missing_id | has no id |
| missing_position | has no latitude or no longitude (empty, NaN, null, none, NA) |
| decimal_comma | writes numbers as 48,85 |
| not_a_number | has a latitude or longitude that is no decimal number |
| lat_out_of_range | has a latitude outside of [-90, 90] |
| lon_out_of_range | has a longitude outside of [-180, 180] |
| null_island | lies at exactly (0, 0), which stands for "unknown" |
| duplicate_id | has the id of another accepted row |

Warnings: `bad_time` and `bad_size` (the value is not usable and becomes null).
"""

from __future__ import annotations

from collections.abc import Iterable

from pyspark.sql import Column, DataFrame, Row, Window
from pyspark.sql import functions as F

from geosieve.images.coordinate_lists import INPUT_URI, MALFORMED
from geosieve.runtime.errors import InputError
from geosieve.tables.schemas import IMAGES

STAGE = "check_rows"

_SWAPPED = {
    "numeric": "lat IS NOT NULL AND lon IS NOT NULL",
    "lat_like_lon": "abs(lat) > 90 AND abs(lat) <= 180 AND abs(lon) <= 90",
    "lon_beyond_90": "abs(lon) > 90",
}
SWAP_COUNTS = [f"count_if({condition}) AS {name}" for name, condition in _SWAPPED.items()]
"""Aggregates of parsed positions, as SQL, that tell swapped columns: see `refuse_swapped`."""

_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?$"
_DECIMAL_COMMA = r"^[+-]?[0-9]+,[0-9]+$"
_UNKNOWN = ("nan", "null", "none", "na", "n/a")

# An epoch of 9 or 10 digits counts seconds (1973 to 2286), one of 12 or 13 milliseconds (the same years).
# A fraction is allowed: pandas writes an integer column with gaps as 1430000000000.0.
_EPOCH_S, _EPOCH_MS = r"^[0-9]{9,10}(\.[0-9]*)?$", r"^[0-9]{12,13}(\.[0-9]*)?$"
_ISO = r"^[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([ T].*)?$"
# The first photograph is of 1826. Years before 1582 would moreover stop Spark's Parquet writer.
_YEARS = (1826, 2099)

_SHOWN = 60  # characters of a bad value in a message
_LONGEST_MESSAGE = 500


def check_rows(rows: DataFrame) -> DataFrame:
    """The columns of `images` plus `error_class`, `message` (both null for a good row) and `input_uri`.

    `rows`: TEXT_COLUMNS, MALFORMED and INPUT_URI as text. `lat` and `lon` hold the parsed numbers also in refused
    rows. Repeated ids are another step: `repeated_ids` and `refuse_repeats`.
    """
    return _typed(parse_positions(rows))


def parse_positions(rows: DataFrame) -> DataFrame:
    """`rows` with tidied texts, `lat` and `lon` as numbers, and `error`: struct(error_class, message), null if good."""
    texts = [name for name in rows.columns if name not in (MALFORMED, INPUT_URI)]
    tidy = rows.select(*(_tidy(F.col(name)).alias(name) for name in texts), MALFORMED, INPUT_URI)
    parsed = tidy.withColumns({"lat_text": F.col("lat"), "lon_text": F.col("lon")}).withColumns(
        {"lat": _number("lat"), "lon": _number("lon")}
    )
    return parsed.withColumn("error", _error())


def rejects(checked: DataFrame, stage: str) -> DataFrame:
    """Rows of `rejects` for the rows that have an error class."""
    return checked.where("error_class IS NOT NULL").select(
        F.col("image_id").alias("id"),
        F.col(INPUT_URI).alias("uri"),
        F.lit(stage).alias("stage"),
        "error_class",
        F.coalesce("message", F.lit("")).alias("message"),
    )


def repeated_ids(checked: DataFrame) -> DataFrame:
    """The ids (`image_id`) that several good rows have. Refused rows count for nothing."""
    return checked.where("error_class IS NULL").groupBy("image_id").count().where("count > 1").select("image_id")


def refuse_swapped(outcomes: Iterable[Row], hint: str) -> None:
    """InputError if latitudes and longitudes of a file are swapped.

    `outcomes`: rows with `input_uri` and SWAP_COUNTS. `hint` tells what to change.
    """
    by_uri: dict[str, list[Row]] = {}
    for row in outcomes:
        by_uri.setdefault(row["input_uri"], []).append(row)
    for uri, mine in sorted(by_uri.items()):
        numeric, suspect = sum(row["numeric"] for row in mine), sum(row["lat_like_lon"] for row in mine)
        # A latitude never exceeds 90, so a swapped file has no "longitude" beyond it and many "latitudes".
        if suspect >= 2 and suspect >= numeric / 20 and not any(row["lon_beyond_90"] for row in mine):
            raise InputError(
                f"latitude and longitude are swapped: {suspect} of {numeric} latitudes exceed 90 and no longitude does",
                where=uri,
                hint=hint,
            )


def refuse_repeats(checked: DataFrame, repeated: DataFrame) -> DataFrame:
    """`checked` with error duplicate_id on every good row but one of each repeated id.

    The row that sorts first by its content is kept, so that neither the order of rows nor partitions decide.
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
    return F.nullif(F.btrim(text, F.lit(" \t\r\n\u00a0")), F.lit(""))


def _number(name: str) -> Column:
    return F.when(F.col(name).rlike(_NUMBER), F.col(name).cast("double"))


def _error() -> Column:
    """struct(error_class, message) of the first check that a row fails; null if it passes all."""
    lat, lon, lat_text, lon_text = (F.col(name) for name in ("lat", "lon", "lat_text", "lon_text"))
    absent = [text.isNull() | F.lower(text).isin(*_UNKNOWN) for text in (lat_text, lon_text)]
    commas = [text.rlike(_DECIMAL_COMMA) for text in (lat_text, lon_text)]
    checks = [
        (
            F.col(MALFORMED).isNotNull(),
            "malformed_row",
            # A query string may be a signature.
            _quote("the row has not the header's fields: ", F.regexp_replace(MALFORMED, r"\?[^\s,;\"]*", "?…"), 300),
        ),
        (F.col("image_id").isNull(), "missing_id", F.lit("the row has no id")),
        (absent[0] | absent[1], "missing_position", _position("no position: ")),
        (commas[0] | commas[1], "decimal_comma", _position("write the number with a decimal point: ")),
        (lat.isNull() | lon.isNull(), "not_a_number", _position("not a decimal number of degrees: ")),
        (
            F.abs(lat) > 90,
            "lat_out_of_range",
            _quote("latitudes lie in [-90, 90]; are latitude and longitude swapped? latitude ", lat_text),
        ),
        (
            (lon > 180) & (lon <= 360),
            "lon_out_of_range",
            _quote("longitudes lie in [-180, 180]; of 0..360 degrees subtract 360 above 180: longitude ", lon_text),
        ),
        (F.abs(lon) > 180, "lon_out_of_range", _quote("longitudes lie in [-180, 180]: longitude ", lon_text)),
        ((lat == 0) & (lon == 0), "null_island", F.lit("position (0, 0) stands for an unknown one")),
    ]
    return F.coalesce(*(F.when(fails, _fault(error_class, message)) for fails, error_class, message in checks))


def _fault(error_class: str, message: Column) -> Column:
    return F.struct(F.lit(error_class).alias("error_class"), F.substring(message, 1, _LONGEST_MESSAGE).alias("message"))


def _quote(before: str, value: Column, shown: int = _SHOWN) -> Column:
    return F.concat(F.lit(before), F.lit("'"), F.coalesce(F.substring(value, 1, shown), F.lit("")), F.lit("'"))


def _position(before: str) -> Column:
    return F.concat(_quote(before + "latitude ", F.col("lat_text")), _quote(", longitude ", F.col("lon_text")))


def _typed(rows: DataFrame) -> DataFrame:
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
        *(column.name for column in IMAGES.columns), "error_class", "message", INPUT_URI
    )


def _time(text: Column) -> Column:
    time = (
        F.when(text.rlike(_EPOCH_S), F.timestamp_seconds(text.cast("double")))
        .when(text.rlike(_EPOCH_MS), F.timestamp_seconds(text.cast("double") / 1000))
        .when(text.rlike(_ISO), F.try_to_timestamp(text))
    )
    return F.when(F.year(time).between(*_YEARS), time)


def _pixels(text: Column) -> Column:
    pixels = F.when(text.rlike(r"^[0-9]{1,9}(\.0*)?$"), text.cast("double").cast("int"))
    return F.when(pixels > 0, pixels)


def _doubt(parsed: Column, code: str, name: str) -> Column:
    given = F.col(name).isNotNull() & ~F.lower(F.col(name)).isin(*_UNKNOWN)
    message = _quote(f"{name} is not usable: ", F.col(name))
    return F.when(given & parsed.isNull(), F.struct(F.lit(code).alias("code"), message.alias("message")))
