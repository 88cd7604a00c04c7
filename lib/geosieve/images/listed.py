"""Lists with the files that they describe: a row of a list says where and when, its file says what the image is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from geosieve.images.archived import IN_ARCHIVE
from geosieve.images.photo_rows import SCHEMA

PHOTO = "photo"
"""Column of checked rows: the row of the image's file, a struct of SCHEMA; null if the list has no file for it."""

Match = Literal["stem", "name", "path"]
"""How the id of a row names its file: by the file's name without its extension, by its name, or by the end of its path
(whole folder names)."""

_OF_FILE = ("uri", "member", "offset", "length", "compression", "width", "height", "orientation")
_HASHES = ("content_sha256", "perceptual_hash")
# The list has the position. That the file has none, or another one, is no doubt about the row.
_OF_POSITIONS = ("no_position", "bad_gps", "other_datum")


@dataclass(frozen=True)
class Matched:
    """`rows`: checked rows with PHOTO. `refused`: rows of refused images and archives that no row of the list names.

    `unlisted` counts the other files that no row of the list names.
    """

    rows: DataFrame
    refused: DataFrame
    unlisted: Callable[[], int]


def match_files(rows: DataFrame, files: DataFrame, match: Match) -> Matched:
    """Give each checked row of a list the file that its id names. `files`: rows of SCHEMA; they are read three times.

    A row without a file gets the error class no_file. One with several files gets ambiguous_file, unless these have the
    same bytes.
    """
    # A fault of an archive, e.g. of `02.zip`, is not the file of the row `02`.
    images = files.where(f"NOT (member IS NULL AND {IN_ARCHIVE})")
    keyed = images.select(F.explode(_keys(match)).alias("key"), F.struct(*SCHEMA.names).alias(PHOTO))
    good = F.col("photo.error_class").isNull()
    by_key = keyed.groupBy("key").agg(
        F.min_by(PHOTO, F.struct(~good, "photo.image_id")).alias(PHOTO),
        F.count_distinct(F.when(good, F.coalesce("photo.content_sha256", "photo.image_id"))).alias("kinds"),
    )
    id_key = F.regexp_replace("image_id", r"^(\./|/)+", "") if match == "path" else F.col("image_id")
    joined = rows.withColumn("key", id_key).join(by_key, "key", "left")
    faults = {
        "no_file": (F.col(PHOTO).isNull(), F.lit("the list's folder has no file of this id")),
        "ambiguous_file": (F.col("kinds") > 1, F.concat(F.col("kinds"), F.lit(" different files have this id"))),
    }
    for name, (applies, text) in faults.items():
        fault = F.col("error_class").isNull() & applies
        joined = joined.withColumns(
            {
                "message": F.when(fault, text).otherwise(F.col("message")),
                "error_class": F.when(fault, F.lit(name)).otherwise(F.col("error_class")),
            }
        )
    listed = rows.select(id_key.alias("key")).distinct()
    named = keyed.join(listed, "key", "left_semi").select("photo.image_id").distinct()
    unlisted = files.join(named, "image_id", "left_anti")
    is_fault = "coalesce(error_class != 'not_an_image', false)"  # the list itself may lie among its images
    return Matched(joined.drop("key", "kinds"), unlisted.where(is_fault), unlisted.where(f"NOT {is_fault}").count)


def _keys(match: Match) -> Column:
    """The ids that a file answers to, from its path (`image_id` of its row)."""
    name = F.substring_index("image_id", "/", -1)
    if match == "name":
        return F.array(name)
    if match == "stem":
        return F.array(F.regexp_replace(name, r"\.[^.]*$", ""))
    parts = F.split("image_id", "/")
    ends = F.sequence(F.lit(1), F.size(parts))
    return F.transform(ends, lambda start: F.array_join(F.slice(parts, start, F.size(parts)), "/"))


def with_files(rows: DataFrame) -> DataFrame:
    """Checked rows with PHOTO as rows of SCHEMA: the file's columns, its refusal, and the list's position and names."""
    has = F.col(PHOTO).isNotNull()
    of_file = {name: F.when(has, F.col(f"photo.{name}")).otherwise(F.col(name)) for name in (*_OF_FILE, *_HASHES)}
    doubts = F.filter("photo.warnings", lambda doubt: ~doubt["code"].isin(*_OF_POSITIONS))
    refused = F.col("photo.error_class").isNotNull()  # first, for damage of a file has no id and no position either
    columns = {
        **of_file,
        "captured_at": F.coalesce("captured_at", "photo.captured_at"),
        "warnings": F.concat("warnings", F.coalesce(doubts, F.array())),
        "message": F.when(refused, F.col("photo.message")).otherwise(F.col("message")),
        "error_class": F.when(refused, F.col("photo.error_class")).otherwise(F.col("error_class")),
    }
    return rows.select(*(columns.get(name, F.col(name)).alias(name) for name in SCHEMA.names))
