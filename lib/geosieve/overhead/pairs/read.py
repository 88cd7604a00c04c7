"""Read committed chips and pairs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import Field
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from geosieve.overhead.pairs.config import ChipsInput, PairsConfig
from geosieve.runtime.config import Config, RunId, validate
from geosieve.runtime.errors import InputError
from geosieve.runtime.names import advice
from geosieve.tables.publish import CONFIG, REPORT
from geosieve.tables.read import Run, attachment, committed_runs, latest_rows, named_run, read_runs, select_runs
from geosieve.tables.schemas import CHIPS, IMAGE_KEY, PAIRS


@dataclass(frozen=True)
class Chips:
    """Chips of one view. `rows`: as `chips`, with the partition columns; `runs`: in the order of their commits."""

    rows: DataFrame
    runs: list[Run]

    def references(self) -> DataFrame:
        """The rows without their bytes; where runs repeat an image, the row of the latest."""
        return latest_rows(self.rows.drop("chip"), self.runs, *IMAGE_KEY)


def read_chips(spark: SparkSession, given: ChipsInput) -> Chips:
    """The chips that `given` names. InputError if there is no such set of chips, run or view; it tells the nearest."""
    where = f"{given.root}/{CHIPS.name}"
    every = committed_runs(spark, given.root, CHIPS)
    runs = [run for run in every if run.values["chip_set"] == given.name]
    if not runs:
        known = {run.values["chip_set"] for run in every}
        hint = advice(given.name, known, "sets of chips") if known else "run cut_chips first"
        raise InputError(f"no committed run of the set of chips {given.name!r}", where=where, hint=hint)
    runs = select_runs(runs, given.run, where)
    rows = read_runs(spark, given.root, CHIPS, runs)
    chosen = rows.where(F.col("view") == given.view)
    if chosen.select("view").first() is None:
        views = [row[0] for row in rows.select("view").distinct().limit(20).collect()]
        raise InputError(f"no chip has the view {given.view!r}", where=where, hint=advice(given.view, views, "views"))
    return Chips(chosen, runs)


class PairsInput(Config):
    """A committed run of `pairs`."""

    root: str = Field(min_length=1, description="root folder of the tables, on any store")
    name: str = Field(description="name of the set of pairs")
    run: RunId = Field("latest", description="a run id or `latest`")


@dataclass(frozen=True)
class CommittedPairs:
    """One committed run of `pairs`."""

    spark: SparkSession
    root: str
    run: Run

    def rows(self) -> DataFrame:
        """The rows, with the partition columns. RetryableError if files of the run are missing."""
        return read_runs(self.spark, self.root, PAIRS, [self.run])

    @cached_property
    def config(self) -> PairsConfig:
        """The configuration that made them."""
        return validate(PairsConfig, self._json(CONFIG), where=f"{self.run.uri}/{CONFIG}")

    @cached_property
    def report(self) -> dict[str, Any]:
        """The report of the run."""
        found: dict[str, Any] = self._json(REPORT)
        return found

    def _json(self, name: str) -> Any:
        with attachment(self.spark, self.run, name) as path:
            return json.loads(path.read_text(encoding="utf-8"))


def read_pairs(spark: SparkSession, given: PairsInput) -> CommittedPairs:
    """The run of pairs that `given` names. InputError if there is no such set or run, or if `run` selects several."""
    kind = ("set of pairs", "sets of pairs")
    run = named_run(spark, given.root, PAIRS, given.name, given.run, kind, "build_pairs")
    return CommittedPairs(spark, given.root, run)
