"""Compare answers with known positions: recall within an area, and what stated probabilities are worth.

An answer ends somewhere, and beyond its end nothing is known. Of an image whose truth lies there, the curves have two
ends: the truth never comes, or it comes next.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import to_arrow_schema

from geosieve.evaluation.curves import Curve
from geosieve.evaluation.measures import CURVE_KM2
from geosieve.evaluation.protocols import THRESHOLDS_KM
from geosieve.geo.sphere import haversine_km
from geosieve.images.read import POSITIONED, ImagesInput, read_images
from geosieve.overlay.read import OverlayInput, read_published
from geosieve.reporting.answers import Answers
from geosieve.tables.schemas import IMAGE_KEY

LEVELS = tuple(np.round(np.arange(0.05, 1.0, 0.05), 2).tolist())
"""Stated probabilities at which the share of truths is told."""


@dataclass(frozen=True)
class Compared:
    """Answers beside the truth, of `images` images.

    `area`: recall over the area searched, km². `reliability`: the share of images whose truth lies in the leading
    regions that hold a stated probability, over that probability. `low` of both is what is known; between `low` and
    `high` lie the images whose answers end before their truth: `censored` of them. `within`: share of the images whose
    best point is at most so many km from the truth.
    """

    images: int
    censored: int
    area: Curve
    reliability: Curve
    within: dict[float, float]


def true_positions(answers: Answers, root: str) -> DataFrame:
    """Source, id, true_lat and true_lon of the images whose position is known."""
    spark = answers.summaries.sparkSession
    rows = read_images(spark, ImagesInput(root=root, sources=[], run="all")).rows.where(POSITIONED)
    known = rows.select(*IMAGE_KEY, F.col("lat").alias("true_lat"), F.col("lon").alias("true_lon"))
    return known.join(answers.summaries.select(*IMAGE_KEY), [*IMAGE_KEY])


def compare(answers: Answers, truth: DataFrame, overlay: OverlayInput) -> Compared | None:
    """Compare answers with `truth`, as from `true_positions`; None if there is no image with a known position.

    The region of a true position is that with the largest share of its pixel. InputError if the answers are over
    another overlay.
    """
    spark = answers.summaries.sparkSession
    published = read_published(spark, overlay)
    region_of_atom = spark.sparkContext.broadcast(answers.region_of_atom(published.overlay()))
    grid = spark.sparkContext.broadcast(published.atom_grid())
    points = truth.join(answers.summaries.select(*IMAGE_KEY, "lat", "lon"), [*IMAGE_KEY])
    points = points.withColumns({"atom": F.lit(0).cast("bigint"), "km": F.lit(None).cast("double")})
    schema = points.schema
    arrow = to_arrow_schema(schema)

    def located(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            lat, lon, best_lat, best_lon = (
                batch.column(schema.names.index(name)).to_numpy(zero_copy_only=False)
                for name in ("true_lat", "true_lon", "lat", "lon")
            )
            there = ~np.isnan(best_lat)
            km = np.full(there.size, np.nan)
            km[there] = haversine_km(lat[there], lon[there], best_lat[there], best_lon[there])
            found = {
                "atom": pa.array(region_of_atom.value[grid.value.drawn(lat, lon)]),
                "km": pa.array(km, from_pandas=True),
            }
            columns = [found.get(name, batch.column(k)) for k, name in enumerate(schema.names)]
            yield pa.RecordBatch.from_arrays(columns, schema=arrow)

    where = points.mapInArrow(located, schema).select(*IMAGE_KEY, "atom", "km")
    hit = answers.regions.select(
        *IMAGE_KEY,
        "atom",
        F.col("cumulative_area_km2").alias("reached"),
        (F.col("cumulative_probability") - F.col("probability")).alias("before"),
    )
    # A conformal set by stratum may leave out regions: then the truth may lie between those that are told.
    ends = answers.regions.groupBy(*IMAGE_KEY).agg(
        F.when(F.max("rank") == F.count("*"), F.max("cumulative_area_km2")).otherwise(0.0).alias("told_area"),
        F.when(F.max("rank") == F.count("*"), F.max("cumulative_probability")).otherwise(0.0).alias("told_mass"),
    )
    rows = where.join(hit, [*IMAGE_KEY, "atom"], "left").join(ends, [*IMAGE_KEY], "left")
    return _curves(rows)


def _curves(rows: DataFrame) -> Compared | None:
    """The figures of rows with: km, reached and before (null: the answer ends before the truth), told_area, told_mass.

    One pass over the rows; what comes back does not grow with them.
    """
    found = F.col("reached").isNotNull()
    answered = F.col("told_area").isNotNull()

    def share(condition: Column) -> Column:
        return F.avg(F.when(condition, 1.0).otherwise(0.0))

    figures = {"images": F.count("*"), "censored": F.sum(F.when(~found & answered, 1).otherwise(0))}
    for k, area in enumerate(CURVE_KM2):
        figures[f"area_low_{k}"] = share(found & (F.col("reached") <= area))
        figures[f"area_high_{k}"] = share(
            F.when(found, F.col("reached") <= area).otherwise(answered & (F.col("told_area") < area))
        )
    for k, level in enumerate(LEVELS):
        figures[f"mass_low_{k}"] = share(found & (F.col("before") < level))
        figures[f"mass_high_{k}"] = share(
            F.when(found, F.col("before") < level).otherwise(answered & (F.col("told_mass") < level))
        )
    for k, km in enumerate(THRESHOLDS_KM):
        figures[f"km_{k}"] = share(F.coalesce(F.col("km") <= km, F.lit(False)))
    (row,) = rows.agg(*(of.alias(name) for name, of in figures.items())).collect()
    if not row["images"]:
        return None

    def curve(name: str, x: tuple[float, ...]) -> Curve:
        low, high = (np.array([row[f"{name}_{end}_{k}"] for k in range(len(x))]) for end in ("low", "high"))
        return Curve(np.array(x), low, low, high)

    within = {km: float(row[f"km_{k}"]) for k, km in enumerate(THRESHOLDS_KM)}
    return Compared(row["images"], row["censored"], curve("area", CURVE_KM2), curve("mass", LEVELS), within)
