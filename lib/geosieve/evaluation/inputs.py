"""Read lists of truth and predictions made by any program, and refuse files that contain serious errors.

A list is CSV or Parquet; the configuration names its columns. If one file has both truth and predictions as columns,
it is named twice in the configuration.

Some errors refuse the whole file, because leaving out single rows would silently change the figures: ids that occur
twice, rows with aggregates ("mean, 12.3, …") at the end or under an aggregate's name, swapped latitudes and longitudes,
and predictions for images that are not in the truth.
"""

from __future__ import annotations

import re
from operator import itemgetter
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, field_validator
from pyspark.sql import Column, DataFrame, Row, SparkSession, Window
from pyspark.sql import functions as F

from geosieve.images.coordinate_lists import (
    INPUT_URI,
    MALFORMED,
    Names,
    csv_header,
    find_files,
    has_ascii_lines,
    open_csv,
    open_parquet,
)
from geosieve.images.row_checks import is_word_for_nothing, parse_positions
from geosieve.runtime.config import Config
from geosieve.runtime.errors import InputError
from geosieve.runtime.files import literal

# Ids that are names of aggregates, e.g. "mean", "Grand Total", "25%", "accuracy: 0.8".
_AGGREGATES = (
    r"(?i)^((grand|sub|macro|micro|weighted|overall)[ _-]?)?"
    r"((mean|median|avg|average|total|sum|count|minimum|maximum)s?"
    r"|summary|overall|all|std|stdev|standard deviation|variance|rmse|mae|min|max|accuracy|\d+%)"
    r"([ :=(].*|[._-][^0-9/\\.]*)?$"
)
EXCLUDED = "excluded_by_filter"
"""Error class of the rows that `exclude_ids` leaves out."""
_ENDS = 10  # number of rows at each end of a file that are compared to the mean and the sum of the others
_LEAST_BEFORE = 3  # minimum number of rows for which a mean or a sum is significant
_EXTENSION = r"(?i)\.(jpe?g|png|tiff?|webp|gif|bmp|hei[cf])$"
_SHOWN = 5


class PositionColumns(Config):
    """The names that a list uses for the columns of the image id and of the position in degrees."""

    image_id: str
    lat: str
    lon: str


class PredictionColumns(PositionColumns):
    """The same for predictions. `area_km2` is for systems that rank regions.

    The column holds the area searched until the truth is reached, in km². Empty or NaN: the truth is never reached.
    """

    area_km2: str | None = None


class ListInput(Config):
    """A CSV or Parquet list: one file, or all files of a folder or a glob."""

    format: Literal["csv", "parquet"]
    uri: str = Field(min_length=1)
    columns: PositionColumns
    delimiter: str = Field(",", min_length=1, max_length=1)
    encoding: str = Field("UTF-8", description="character set of CSV files, by a name that Java knows")
    strip_extension: bool = Field(False, description="remove .jpg, .png … from ids before they are compared")
    exclude_ids: str | None = Field(None, description="regular expression of ids whose rows are left out")

    @field_validator("exclude_ids")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        # The matching is done by Java, whose syntax differs little. Without this check, a mistake in the pattern would
        # only fail in Spark's tasks, and look like an internal error.
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
        return pattern


class ListTruth(ListInput):
    """The true positions of the images. `strata`: for each stratum, by its name, the column with its values."""

    strata: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], str] = {}


class System(ListInput):
    """The predictions of one system."""

    name: str = Field(min_length=1, max_length=60)
    columns: PredictionColumns


def read_list(spark: SparkSession, source: ListInput, key: str) -> DataFrame:
    """Open a list: one row per row of its files, good or refused. `key`: its place in the configuration.

    Columns: image_id; lat and lon in degrees; all other mapped columns, as text; error_class and message, null if the
    row is good; `suspect`, whether the row may be an aggregate; `named`, whether its position is good and its id is the
    name of an aggregate; input_uri; `row`, a number that increases within a file.

    InputError if the list cannot be read.
    """
    files = find_files(spark, source.uri, key)
    strata = source.strata if isinstance(source, ListTruth) else {}
    divided = {stratum_column(name): column for name, column in strata.items()}
    names: Names = [*source.columns, *divided.items()]
    if source.format == "csv":
        raw = open_csv(spark, names, source.delimiter, files, key, encoding=source.encoding)
    else:
        raw = open_parquet(spark, names, files, key)
    mapped = [ours for ours, theirs in names if theirs is not None]
    parsed = parse_positions(raw.select(*mapped, MALFORMED, INPUT_URI))
    # A mean of coordinates looks like any other position, so only its id can show that it is an aggregate.
    excluded, suspect = _matches(source, F.col("image_id")), _suspect(F.col("image_id"), F.col(MALFORMED))
    named = F.coalesce(_is_aggregate(F.col("image_id")), F.lit(False))
    image_id = F.regexp_replace("image_id", _EXTENSION, "") if source.strip_extension else F.col("image_id")
    settled = {
        "error_class": F.when(excluded, F.lit(EXCLUDED)).otherwise(F.col("error.error_class")),
        "message": F.when(
            excluded, F.concat(F.lit("exclude_ids matches "), F.coalesce("image_id", F.lit("no id")))
        ).otherwise(F.col("error.message")),
        "suspect": ~excluded & suspect,
        "named": ~excluded & named & F.col("error").isNull(),
        "image_id": F.when(~excluded, image_id),
        "row": F.monotonically_increasing_id(),  # increases within a file
    }
    # NA is also the country code of Namibia.
    texts = {
        name: F.expr(f"CASE WHEN NOT {is_word_for_nothing(name)} OR {name} = 'NA' THEN {name} END") for name in divided
    }
    return parsed.withColumns({**settled, **texts}).drop("error", "lat_text", "lon_text", MALFORMED)


def stratum_column(name: str) -> str:
    """The name of the column with the values of a stratum."""
    return f"stratum_{name}"


def refuse_repeats(rows: DataFrame, source: ListInput | None, key: str) -> None:
    """InputError, with examples, if an id occurs more than once. Rows without an id are ignored."""
    repeats = rows.where("image_id IS NOT NULL").groupBy("image_id").count().where("count > 1")
    examples = [row["image_id"] for row in repeats.orderBy("image_id").take(_SHOWN)]
    if examples:
        n = repeats.count()
        hint = "an image may stand there once; keep one row of each"
        if source is not None and source.strip_extension:
            hint += f", or compare ids with their extension ({key}.strip_extension: false)"
        raise InputError(
            f"{n} ids occur more than once: {', '.join(examples)}{' …' if n > len(examples) else ''}",
            where=key if source is None else f"{key}, {source.uri}",
            hint=hint,
        )


def refuse_means(rows: DataFrame, key: str) -> None:
    """InputError if a row at the start or the end of a file is the mean or the sum of the other rows' positions.

    Its id does not matter: a tool that averages a table also averages its ids. `rows`: as from `read_list`.
    """
    good = rows.where("error_class IS NULL")
    lat, lon = F.col("lat"), F.col("lon")
    powers = [F.sum(of).alias(name) for name, of in {"a": lat, "b": lon, "aa": lat * lat, "bb": lon * lon}.items()]
    totals = good.groupBy("input_uri").agg(F.count("*").alias("n"), *powers).collect()
    file = Window.partitionBy("input_uri")
    places = {
        "last": F.row_number().over(file.orderBy(F.desc("row"))),
        "first": F.row_number().over(file.orderBy("row")),
    }
    outer = good.withColumns(places).where(f"first <= {_ENDS} OR last <= {_ENDS}").collect()
    for which in places:
        ends: dict[str, list[Row]] = {}
        for row in sorted((row for row in outer if row[which] <= _ENDS), key=itemgetter(which)):
            ends.setdefault(row["input_uri"], []).append(row)
        for total in totals:
            found = _aggregate_among(ends[total["input_uri"]], total)
            if found is not None:
                raise InputError(
                    f"its {which} rows are no image's (aggregates?): the row of id {found[0]!r} has the {found[1]} of "
                    "the positions of the others",
                    where=f"{key}, {total['input_uri']}",
                    hint="remove it, or leave it out by exclude_ids",
                )


def _aggregate_among(end: list[Row], total: Row) -> tuple[str, str] | None:
    """Find an aggregate among the rows at one end of a file: its id, and whether it is a mean or a sum.

    `end`: the rows, outermost first. For each k, the first k are compared to the mean and the sum of all other rows of
    the file. `total`: number, sums and sums of squares of all rows of the file.
    """
    places = np.array([[row["lat"], row["lon"]] for row in end])
    sums, squares = np.array([total["a"], total["b"]]), np.array([total["aa"], total["bb"]])
    for last in range(1, min(len(end), total["n"] - _LEAST_BEFORE) + 1):
        n, before = total["n"] - last, sums - places[:last].sum(axis=0)
        mean = before / n
        spread = np.sqrt(np.maximum((squares - (places[:last] ** 2).sum(axis=0)) / n - mean**2, 0))
        # Means are usually printed with four decimals. It is very unlikely that an image lies so close to the mean.
        near = np.minimum(5e-5, 1e-3 * spread)
        found = [(np.abs(places[:last] - of) <= near).all(axis=1) for of in (mean, before)]
        for row in np.flatnonzero((found[0] | found[1]) & (spread > 1e-6).all()):
            return end[row]["image_id"], "mean" if found[0][row] else "sum"
    return None


def refuse_aggregates(rows: DataFrame, source: ListInput, uri: str) -> None:
    """InputError if the suspect rows of a file show that it contains aggregates.

    That is so if the id of a good row is the name of an aggregate, or if the file ends with suspect rows. Where
    possible, the error gives the line numbers. `rows`: as from `read_list`; some rows of file `uri` are suspect.
    """
    mine = rows.where(F.col("input_uri") == uri)
    last_good = mine.where("NOT suspect").agg(F.max("row")).first()
    last = last_good[0] if last_good and last_good[0] is not None else -1
    within = not mine.where(F.col("named") & (F.col("row") <= last)).isEmpty()
    if not within and mine.where(F.col("suspect") & (F.col("row") > last)).isEmpty():
        return  # suspect rows between good ones are rejected one by one, by their own error class
    which = "some of its" if within else "its last"
    found = f"{which} rows are no image's (aggregates?): they have no id, or an aggregate's name for one"
    if source.format == "csv" and has_ascii_lines(rows.sparkSession, source.encoding):
        numbered = _numbered(rows.sparkSession, source, uri)
        last_line = numbered.where("NOT suspect").agg(F.max("line")).first()
        tail = F.col("suspect") & (F.col("line") > (last_line[0] if last_line and last_line[0] else 0))
        lines = [row["line"] for row in numbered.where(F.col("named") | tail).orderBy("line").take(_SHOWN + 1)]
        more = " …" if len(lines) > _SHOWN else ""
        found += f"; lines {', '.join(map(str, lines[:_SHOWN]))}{more}"
    raise InputError(
        found,
        where=uri,
        hint="if they are to be left out, say so by exclude_ids, e.g. '(mean|total).*' or '' for no id",
    )


def _numbered(spark: SparkSession, source: ListInput, uri: str) -> DataFrame:
    """The lines of a CSV file after its header, without blank ones: `line` (number, from 1), `suspect` and `named`.

    They are physical lines of the file: a record with a quoted line break takes two.
    """
    header = csv_header(spark, uri, source.delimiter, source.encoding)
    schema = ", ".join([*(f"_{position} string" for position in range(len(header))), f"{MALFORMED} string"])
    options = {"sep": source.delimiter, "escape": '"', "columnNameOfCorruptRecord": MALFORMED}
    # One partition, so that the ids are line numbers. Only files that will be refused are read in this way.
    text = spark.read.text(literal(uri)).coalesce(1).withColumn("line", F.monotonically_increasing_id() + 1)
    rows = text.where("line > 1 AND trim(value) != ''").withColumn("row", F.from_csv("value", schema, options))
    image_id = F.nullif(F.trim(F.col(f"row._{header.index(source.columns.image_id)}")), F.lit(""))
    excluded = _matches(source, image_id)
    named = F.coalesce(_is_aggregate(image_id), F.lit(False))
    suspect = _suspect(image_id, F.col(f"row.{MALFORMED}"))
    return rows.select("line", (~excluded & suspect).alias("suspect"), (~excluded & named).alias("named"))


def _matches(source: ListInput, image_id: Column) -> Column:
    """Whether `exclude_ids` matches the whole id; a null id counts as an empty text."""
    if source.exclude_ids is None:
        return F.lit(False)
    return F.coalesce(image_id, F.lit("")).rlike(f"^(?:{source.exclude_ids})$")


def _suspect(image_id: Column, malformed: Column) -> Column:
    """Whether a row may be an aggregate: it has no id, its id is the name of an aggregate, or it is malformed."""
    return image_id.isNull() | _is_aggregate(image_id) | malformed.isNotNull()


def _is_aggregate(image_id: Column) -> Column:
    """Whether an id is the name of an aggregate. A file name with an image extension never is."""
    return image_id.rlike(_AGGREGATES) & ~image_id.rlike(_EXTENSION)
