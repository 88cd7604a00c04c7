"""Which photos become pairs, and why the others do not: joins of references, without the bytes of photos and chips."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from geosieve.images.content import NO_BYTES, NO_BYTES_MESSAGE, REFERENCE, WITHOUT_BYTES
from geosieve.images.read import NO_POSITION, NO_POSITION_MESSAGE, POSITIONED
from geosieve.overhead.pairs.config import Area, Crowd, PairsConfig
from geosieve.splits.config import LEFT_OUT
from geosieve.splits.read import CommittedSplits
from geosieve.splits.rules import with_cells
from geosieve.tables.schemas import IMAGE_KEY

METADATA = ("lat", "lon", "captured_at", "author", "licence")
CHIP_RUN = "chip_run"
CHOSEN = "error_class IS NULL"

_SAME_DEG = 1e-9  # a tenth of a millimetre


def candidates(
    images: DataFrame, chips: DataFrame, splits: CommittedSplits | None, names: Iterable[str], config: PairsConfig
) -> DataFrame:
    """One row per image: what a pair takes of it, its split and area, and where its chip is; or why it is no pair.

    `images` and `chips` have one row per image. `names`: the splits that are wanted. Columns: IMAGE_KEY, METADATA,
    REFERENCE, split, area, CHIP_RUN, error_class and message; the last two are null for what is CHOSEN. The first
    reason that applies counts, in this order: no_position, licence_not_allowed, no_chip, moved, not_split, the reason
    of the split, other_split, too_many_of_author, no_bytes.
    """
    wanted = images.select(*IMAGE_KEY, *METADATA, *REFERENCE)
    ground = chips.select(
        *IMAGE_KEY,
        F.col("lat").alias("chip_lat"),
        F.col("lon").alias("chip_lon"),
        F.col("run_id").alias(CHIP_RUN),
        _area(config.areas).alias("area"),
    )
    found = wanted.join(ground, [*IMAGE_KEY], "left")
    if splits is None:
        none = F.lit(None).cast("string")
        found = found.withColumn("split", none)
    else:
        found = found.join(splits.reasons(), [*IMAGE_KEY], "left")
    reasons = [
        (~F.expr(POSITIONED), F.lit(NO_POSITION), F.lit(NO_POSITION_MESSAGE)),
        *_unlicensed(config),
        (
            F.col(CHIP_RUN).isNull(),
            F.lit("no_chip"),
            F.lit(f"no chip of it in {config.chips.name}, view {config.chips.view}: the rejects of cut_chips say why"),
        ),
        (_moved(), F.lit("moved"), F.lit("its position is not the one that its chip was cut for: cut chips again")),
        *([] if splits is None else _not_in_split(splits, names)),
    ]
    found = _with_reasons(found, reasons).drop("chip_lat", "chip_lon", "reason")
    if config.crowd is not None:
        found = _crowded(found, config.crowd)
    without = F.expr(f"{CHOSEN} AND {WITHOUT_BYTES}")
    return _refused(found, without, F.lit(NO_BYTES), F.lit(NO_BYTES_MESSAGE))


def wildcard(pattern: str) -> str:
    """A regular expression, of Java as of Python, for a pattern with `*` and `?`."""
    parts = ({"*": ".*", "?": "."}.get(letter) or re.escape(letter) for letter in pattern)
    return f"(?s)^{''.join(parts)}$"


def _area(areas: Iterable[Area]) -> Column:
    name: Any = F
    for area in areas:
        name = name.when(F.col("raster_uri").rlike(wildcard(area.pattern)), F.lit(area.name))
    of_source = F.col("raster_source")
    column: Column = of_source if name is F else name.otherwise(of_source)
    return column


Reason = tuple[Column, Column, Column]
"""A condition, and the error class and message of the images that meet it."""


def _unlicensed(config: PairsConfig) -> list[Reason]:
    if config.licences == "any":
        return []
    allowed = F.coalesce(F.col("licence").isin([*config.licences]), F.lit(False))
    said = F.when(F.col("licence").isNull(), F.lit("no licence is known"))
    said = said.otherwise(F.concat(F.lit("its licence is "), F.substring("licence", 1, 200)))
    return [(~allowed, F.lit("licence_not_allowed"), said)]


def _moved() -> Column:
    north, east = F.abs(F.col("lat") - F.col("chip_lat")), F.abs(F.col("lon") - F.col("chip_lon"))
    return F.greatest(north, F.least(east, F.abs(east - 360))) > _SAME_DEG


def _not_in_split(splits: CommittedSplits, names: Iterable[str]) -> list[Reason]:
    name = splits.run.values["split_set"]
    left_out = F.col("split") == LEFT_OUT
    said = F.concat(F.lit(f"the splits {name} leave it out: "), "reason")
    other = F.concat(F.lit("it is in the split "), "split")
    return [
        (F.col("split").isNull(), F.lit("not_split"), F.lit(f"the splits {name} do not know it: make them again")),
        (left_out, F.col("reason"), said),
        (~F.col("split").isin([*names]), F.lit("other_split"), other),
    ]


def _with_reasons(rows: DataFrame, reasons: Iterable[Reason]) -> DataFrame:
    error_class: Any = F
    message: Any = F
    for condition, word, words in reasons:
        error_class, message = error_class.when(condition, word), message.when(condition, words)
    return rows.withColumns({"error_class": error_class, "message": message})


def _refused(rows: DataFrame, condition: Column, word: Column, words: Column) -> DataFrame:
    return rows.withColumns(
        {
            "error_class": F.when(condition, word).otherwise(F.col("error_class")),
            "message": F.when(condition, words).otherwise(F.col("message")),
        }
    )


def _crowded(rows: DataFrame, crowd: Crowd) -> DataFrame:
    """Leave out what exceeds an author's number of photos at one place. Photos without an author stay."""
    # Rows that do not count get keys of their own, or all of them would come to one task.
    own = F.xxhash64(*IMAGE_KEY)
    counted = F.expr(f"{CHOSEN} AND author IS NOT NULL")
    unit = [F.when(counted, F.col(name)) for name in ("author", "cell")] + [F.when(~counted, own)]
    place = F.row_number().over(Window.partitionBy(*unit).orderBy(own, *IMAGE_KEY))
    # The cell is looked up apart, so that only positions go through Python.
    cells = with_cells(rows.select(*IMAGE_KEY, "lat", "lon"), crowd.s2_level).select(*IMAGE_KEY, "cell")
    placed = rows.join(cells, [*IMAGE_KEY], "left").withColumn("place", place)
    beyond = counted & (F.col("place") > crowd.photos)
    said = f"its author has {crowd.photos} other photos here (S2 cells of level {crowd.s2_level})"
    return _refused(placed, beyond, F.lit("too_many_of_author"), F.lit(said)).drop("cell", "place")
