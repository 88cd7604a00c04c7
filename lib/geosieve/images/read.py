"""Read committed runs of `images` for other jobs, and select the rows that have a position.

Each image is read once, however many runs contain it: ingesting a list again must not multiply labels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pydantic import Field
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from geosieve.runtime.config import Config, RunId
from geosieve.runtime.errors import InputError
from geosieve.runtime.files import Files
from geosieve.runtime.names import advice, did_you_mean
from geosieve.runtime.report import JobReport
from geosieve.tables.read import Run, committed_runs, latest_rows, read_runs, select_runs
from geosieve.tables.schemas import IMAGE_KEY, IMAGES

POSITIONED = "coalesce(lat BETWEEN -90 AND 90 AND lon BETWEEN -180 AND 180, false)"
"""Condition in SQL: the image has a position on the Earth."""
NOT_POSITIONED = "lat IS NULL OR lon IS NULL OR lat < -90 OR lat > 90 OR lon < -180 OR lon > 180"
"""Its negation (NaN is above every number), in a form with which Parquet's statistics rule out whole row groups."""
NO_POSITION, NO_POSITION_MESSAGE = "no_position", "the image has no position on the Earth"
"""Error class and message of a row without one."""


class ImagesInput(Config):
    """Committed runs of `images`."""

    root: str
    sources: list[str] = Field([], description="names of the sources to read; all if empty")
    run: RunId = Field("latest", description="a run id, `latest` (of each source) or `all` (the latest row of each id)")


@dataclass(frozen=True)
class Images:
    """`rows`: `images` of `runs`, one row per source and id; `older`: rows of earlier runs left out for later ones."""

    rows: DataFrame
    runs: list[Run]
    older: int

    @property
    def count(self) -> int:
        """How many rows there are."""
        return sum(run.rows for run in self.runs) - self.older

    def found(self) -> dict[str, str]:
        """What was found, for plans and reports: rows and place by source."""
        places: dict[str, list[Run]] = {}
        for run in self.runs:
            places.setdefault(run.values["source"], []).append(run)
        return {
            f"images of {source}": ", ".join(f"{run.rows} rows in {run.uri}" for run in runs)
            for source, runs in places.items()
        }

    def tell(self, report: JobReport) -> None:
        """Say in the report how many rows of earlier runs were left out."""
        if self.older:
            report.details["older_rows_left_out"] = self.older
            report.warn(f"{self.older} rows of images were left out: a later run of their source has their ids")


def read_images(spark: SparkSession, images: ImagesInput) -> Images:
    """Read the configured images: one row per source and id, from the latest committed run that contains the id.

    InputError lists what exists if there is no such run or source.
    """
    runs = _image_runs(spark, images)
    rows = read_runs(spark, images.root, IMAGES, runs)
    sources = [run.values["source"] for run in runs]
    repeated = sorted({source for source in sources if sources.count(source) > 1})
    if not repeated:  # an id occurs once in a run
        return Images(rows, runs, 0)
    of_repeated = F.col("source").isin(repeated)
    ids = rows.where(of_repeated).select(*IMAGE_KEY)
    older = sum(run.rows for run in runs if run.values["source"] in repeated) - ids.distinct().count()
    kept = latest_rows(rows.where(of_repeated), runs, *IMAGE_KEY)
    return Images(rows.where(~of_repeated).unionByName(kept), runs, older)


def _image_runs(spark: SparkSession, images: ImagesInput) -> list[Run]:
    runs = committed_runs(spark, images.root, IMAGES)
    where = f"{images.root}/{IMAGES.name}"
    if not runs:
        raise InputError(
            "images.root: no committed run of images", where=where, hint=_what_there_is(spark, images.root)
        )
    refuse_unknown_sources(images.sources, runs, images.root)
    if images.sources:
        runs = [run for run in runs if run.values["source"] in images.sources]
    return select_runs(runs, images.run, where)


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


def _what_there_is(spark: SparkSession, root: str) -> str:
    """What lies where tables were looked for, and where `images` may be meant instead."""
    files = Files(spark)
    if not files.exists(root):
        parent, _, name = root.rstrip("/").rpartition("/")
        beside = [entry.name for entry in files.list(parent or ".") if entry.is_folder]
        return f"there is no folder {root}; {advice(name, beside, 'beside it are')}"
    inside = [entry.name for entry in files.list(root) if not entry.name.startswith((".", "_"))]
    if IMAGES.name in inside:
        return "its folders hold no _SUCCESS: run ingest_images, or run it again if it failed"
    if any(name.startswith("source=") for name in inside):
        return "images.root is the folder above `images`, the output of ingest_images"
    return f"images.root is the output of ingest_images; this folder holds: {', '.join(inside[:30]) or 'nothing'}"
