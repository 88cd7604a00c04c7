"""Read committed splits: one run of a set of splits, and the configuration that made it."""

from __future__ import annotations

import json
from dataclasses import dataclass

from pydantic import Field
from pyspark.sql import DataFrame, SparkSession

from geosieve.runtime.config import Config, RunId, validate
from geosieve.splits.config import SplitConfig
from geosieve.tables.publish import CONFIG
from geosieve.tables.read import Run, attachment, named_run, read_runs
from geosieve.tables.schemas import SPLITS


class SplitsInput(Config):
    """A committed run of `splits`."""

    root: str
    name: str = Field(description="name of the set of splits")
    run: RunId = Field("latest", description="a run id or `latest`")


@dataclass(frozen=True)
class CommittedSplits:
    """One committed run of `splits`."""

    spark: SparkSession
    root: str
    run: Run

    def rows(self) -> DataFrame:
        """One row per image: source, image_id and split, which is `left_out` for images in no split.

        RetryableError if files of the run are missing.
        """
        return read_runs(self.spark, self.root, SPLITS, [self.run]).select("source", "image_id", "split")

    def config(self) -> SplitConfig:
        """The configuration that made the splits."""
        with attachment(self.spark, self.run, CONFIG) as path:
            content = json.loads(path.read_text(encoding="utf-8"))
        return validate(SplitConfig, content, where=f"{self.run.uri}/{CONFIG}")


def read_splits(spark: SparkSession, given: SplitsInput) -> CommittedSplits:
    """The run of splits that `given` names.

    InputError if there is no such set of splits or run, or if `run` selects several runs (`all`).
    """
    kind = ("set of splits", "sets of splits")
    run = named_run(spark, given.root, SPLITS, given.name, given.run, kind, "build_splits")
    return CommittedSplits(spark, given.root, run)
