"""Read the answers of a ranking: one summary per image, by its latest run, and the regions of its answer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from pydantic import Field
from pyspark.sql import DataFrame, SparkSession

from geosieve.ensemble.ranking import coarse_overlay, coarse_regions
from geosieve.geo.arrays import I8
from geosieve.overlay.atoms import Overlay
from geosieve.runtime.config import Config, RunId
from geosieve.runtime.errors import InputError
from geosieve.runtime.files import Files
from geosieve.runtime.names import advice
from geosieve.tables.publish import CONFIG, REPORT
from geosieve.tables.read import Run, committed_runs, latest_rows, read_runs, select_runs
from geosieve.tables.schema import Table
from geosieve.tables.schemas import IMAGE_KEY, IMAGE_SUMMARY, RANKED_REGIONS


class AnswersInput(Config):
    """Answers of a ranking: committed runs of `image_summary` and `ranked_regions`."""

    root: str = Field(min_length=1, description="root folder of the tables, on any store")
    ranking: str = Field(min_length=1, description="name of the ranking")
    run: RunId = Field("all", description="a run id, `latest`, or `all`: each image by its latest run")


@dataclass(frozen=True)
class Answers:
    """Answers of a ranking. `runs`: of `image_summary`, in the order of their commits.

    `summaries`: rows of `image_summary`, one per source and id. `regions`: rows of `ranked_regions` with the source and
    id of the image that they answer, which for a copy is not the one that they were written for.
    """

    root: str
    ranking: str
    runs: list[Run]
    summaries: DataFrame
    regions: DataFrame

    def beside(self, table: Table) -> list[Run]:
        """The runs of another table of this ranking that have the same run ids."""
        mine = {run.run_id for run in self.runs}
        found = committed_runs(self.summaries.sparkSession, self.root, table, ranking=self.ranking)
        return [run for run in found if run.run_id in mine]

    @cached_property
    def reports(self) -> list[dict[str, Any]]:
        """What each of the runs reported; of a run without a report, an empty one."""
        return [self._json(run, REPORT) for run in self.runs]

    @cached_property
    def least_km2(self) -> float | None:
        """The least area of a region, km², which all runs asked for; None: their regions are atoms.

        InputError if they asked for different ones: their regions have different meanings.
        """
        found = {self._json(run, CONFIG).get("least_km2") for run in self.runs}
        if len(found) > 1:
            told = ", ".join("none" if one is None else f"{one:g}" for one in sorted(found, key=str))
            raise InputError(
                f"the runs have regions of different least areas: {told} km2",
                where=f"{self.root}/{IMAGE_SUMMARY.name}/ranking={self.ranking}",
                hint="name one run",
            )
        least = found.pop()
        return None if least is None else float(least)

    def region_of_atom(self, overlay: Overlay) -> I8:
        """The region of answers that each atom of the overlay lies in, (atoms,).

        InputError if the answers are over another overlay.
        """
        least = self.least_km2
        region = coarse_regions(overlay, least) if least is not None else None
        expected = overlay.digest if region is None else coarse_overlay(overlay, region).digest
        others = [row[0] for row in self.summaries.select("overlay_hash").distinct().take(2) if row[0] != expected]
        if others:
            raise InputError(
                f"the answers are over overlay {others[0][:12]}…, the one that is named gives {expected[:12]}…",
                where=f"ranking {self.ranking}",
                hint="name the overlay, and its run, that the images were ranked over",
            )
        return np.arange(overlay.n_atoms) if region is None else region

    def _json(self, run: Run, name: str) -> dict[str, Any]:
        files, uri = Files(self.summaries.sparkSession), f"{run.uri}/{name}"
        found: dict[str, Any] = json.loads(files.read_text(uri)) if files.exists(uri) else {}
        return found


def read_answers(spark: SparkSession, given: AnswersInput) -> Answers:
    """Read the configured answers.

    InputError if there is no such ranking or run (it names those that there are), or if the regions that the summaries
    name are not there.
    """
    where = f"{given.root}/{IMAGE_SUMMARY.name}"
    every = committed_runs(spark, given.root, IMAGE_SUMMARY)
    mine = [run for run in every if run.values["ranking"] == given.ranking]
    if not mine:
        known = {run.values["ranking"] for run in every}
        hint = advice(given.ranking, known, "rankings") if known else "run rank_regions first"
        raise InputError(f"no committed run of the ranking {given.ranking!r}", where=where, hint=hint)
    runs = select_runs(mine, given.run, where)
    rows = latest_rows(read_runs(spark, given.root, IMAGE_SUMMARY, runs), runs, *IMAGE_KEY)
    return Answers(given.root, given.ranking, runs, rows, _regions(spark, given, rows))


def _regions(spark: SparkSession, given: AnswersInput, rows: DataFrame) -> DataFrame:
    """The regions of the answers; they may stand in earlier runs than the summaries."""
    wanted = {row[0] for row in rows.where("regions > 0").select("answer_run_id").distinct().collect()}
    there = committed_runs(spark, given.root, RANKED_REGIONS, ranking=given.ranking)
    missing = sorted(wanted - {run.run_id for run in there})
    if missing:
        raise InputError(
            f"summaries name answers of run {missing[0]}, which is not committed",
            where=f"{given.root}/{RANKED_REGIONS.name}/ranking={given.ranking}",
            hint="the rows of a ranking must not be deleted before those that refer to them",
        )
    runs = [run for run in there if run.run_id in wanted]
    if not runs:
        runs = there[:1]
    regions = read_runs(spark, given.root, RANKED_REGIONS, runs).drop("ranking")
    for of, name in (("source", "answer_source"), ("image_id", "answer_image_id"), ("run_id", "answer_run_id")):
        regions = regions.withColumnRenamed(of, name)
    answered = ("answer_run_id", "answer_source", "answer_image_id")
    return rows.select(*IMAGE_KEY, *answered).join(regions, [*answered]).drop(*answered)
