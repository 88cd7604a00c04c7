"""Committed runs of `images` as other jobs take them, and which of their rows have a position."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import Field
from pyspark.sql import SparkSession

from geosieve.runtime.config import Config, RunId
from geosieve.runtime.errors import InputError
from geosieve.runtime.names import did_you_mean
from geosieve.tables.read import Run, committed_runs, select_runs
from geosieve.tables.schemas import IMAGES

POSITIONED = "coalesce(lat BETWEEN -90 AND 90 AND lon BETWEEN -180 AND 180, false)"
"""Condition in SQL: the image has a position on the Earth."""
NOT_POSITIONED = "lat IS NULL OR lon IS NULL OR lat < -90 OR lat > 90 OR lon < -180 OR lon > 180"
"""Its negation (NaN is above every number), in a form with which Parquet's statistics rule out whole row groups."""
NO_POSITION, NO_POSITION_MESSAGE = "no_position", "the image has no position on the Earth"
"""Error class and message of a row without one."""


class ImagesInput(Config):
    """Committed runs of `images`."""

    root: str
    sources: list[str] = Field([], description="only these sources; all if empty")
    run: RunId = Field("latest", description="a run id, `latest` (of each source) or `all`")


def image_runs(spark: SparkSession, images: ImagesInput) -> list[Run]:
    """The committed runs that are meant. InputError if there are none, or none of one of the sources."""
    runs = committed_runs(spark, images.root, IMAGES)
    refuse_unknown_sources(images.sources, runs, images.root)
    if images.sources:
        runs = [run for run in runs if run.values["source"] in images.sources]
    return select_runs(runs, images.run, f"{images.root}/{IMAGES.name}")


def refuse_unknown_sources(names: Iterable[str], runs: list[Run], root: str) -> None:
    """InputError names the sources that have no run, and those that have."""
    known = sorted({run.values["source"] for run in runs})
    missing = sorted(set(names) - set(known))
    if missing:
        raise InputError(
            f"no images of source {', '.join(missing)}; there are {', '.join(known) or 'none'}",
            where=f"{root}/{IMAGES.name}",
            hint=did_you_mean(missing[0], known),
        )


def found_images(runs: list[Run]) -> dict[str, str]:
    """What was found, for plans and reports: rows and place by source."""
    return {f"images of {run.values['source']}": f"{run.rows} rows in {run.uri}" for run in runs}
