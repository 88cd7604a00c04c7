"""Read committed splits: one run of a set of splits, and the configuration that made it."""

from __future__ import annotations

import json
from dataclasses import dataclass

from pydantic import Field, field_validator
from pyspark.sql import DataFrame, SparkSession

from geosieve.runtime.config import Config, RunId, validate
from geosieve.runtime.errors import InputError
from geosieve.runtime.names import advice
from geosieve.splits.config import LEFT_OUT, SplitConfig
from geosieve.tables.publish import CONFIG
from geosieve.tables.read import Run, attachment, named_run, read_runs
from geosieve.tables.schemas import SPLITS


class SplitsInput(Config):
    """A committed run of `splits`."""

    root: str
    name: str = Field(description="name of the set of splits")
    run: RunId = Field("latest", description="a run id or `latest`")


class ChosenSplits(SplitsInput):
    """A committed run of `splits`, and which of its splits are wanted."""

    only: list[str] = Field([], description="names of splits; all if empty")

    @field_validator("only")
    @classmethod
    def _in_a_split(cls, names: list[str]) -> list[str]:
        if LEFT_OUT in names:
            raise ValueError(f"{LEFT_OUT!r} stands for the images that are in no split")
        return names


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

    def reasons(self) -> DataFrame:
        """As `rows`, with the reason for which an image is in no split."""
        return read_runs(self.spark, self.root, SPLITS, [self.run]).select("source", "image_id", "split", "reason")

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


def split_names(splits: CommittedSplits, only: list[str]) -> dict[str, int]:
    """The splits that are wanted, sorted by name, and the number of images in each. InputError if one is unknown."""
    counted = splits.rows().groupBy("split").count().collect()
    known = {row["split"]: int(row["count"]) for row in counted if row["split"] != LEFT_OUT}
    for name in only:
        if name not in known:
            raise InputError(
                f"splits.only: no image is in a split {name!r}",
                where=splits.run.uri,
                hint=advice(name, known, "splits"),
            )
    if not known:
        raise InputError("every image is left out of all splits", where=splits.run.uri)
    return {name: known[name] for name in sorted(only or known)}
