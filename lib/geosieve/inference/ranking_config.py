"""Configuration of rankings: what ranks images, and what is told of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from geosieve.job.publishing import JobConfig
from geosieve.overlay.read import OverlayInput
from geosieve.runtime.config import Config

Share = Annotated[float, Field(gt=0, lt=1)]


class PredictionColumns(Config):
    """Names of the columns of a table of predictions."""

    source: str = "source"
    image_id: str = "image_id"
    predictor: str = Field(default="predictor", description="the member that an array belongs to")
    partition_hash: str = "partition_hash"
    values: str = Field(
        default="probabilities",
        description="array of numbers, one per region; sparse: array of structs of region and probability",
    )
    rest: str = Field(default="rest", description="sparse: probability of all regions that are not named")


class PredictionsInput(Config):
    """Parquet files of predictions, on any store: one row per image and predictor."""

    uri: str = Field(description="a file, or a folder of files")
    form: Literal["probabilities", "log_probabilities", "sparse"] = "probabilities"
    predictor: str | None = Field(None, description="the member that all rows are of; null: a column says it")
    partition_hash: str | None = Field(None, description="hash of its partition; null: a column says it")
    source: str | None = Field(None, description="source of all images; null: a column says it")
    columns: PredictionColumns = PredictionColumns()


class MemberConfig(Config):
    """A member of the ensemble, whose predictions the tables hold."""

    partition: str = Field(description="a partition of the overlay")
    weight: float = Field(1.0, ge=0, allow_inf_nan=False)
    temperature: float = Field(1.0, gt=0, allow_inf_nan=False)


class PriorConfig(Config):
    """A member that is the same for all images: even in some regions, or by weights such as their population."""

    partition: str = Field(description="a partition of the overlay")
    regions: list[int] | None = Field(None, min_length=1, description="regions with one density; 0 in all others")
    weights: list[float] | None = Field(None, description="one per region, in proportion to its probability")
    weight: float = Field(1.0, ge=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _one(self) -> PriorConfig:
        if (self.regions is None) == (self.weights is None):
            raise ValueError("a prior has either regions or weights")
        return self


class Cut(Config):
    """Where an answer ends."""

    by: Literal["mass", "area_km2", "regions", "coverage"] = Field(
        description="mass: the fewest regions that hold this probability; area_km2: as many as fit; regions: so many; "
        "coverage: the conformal set of this coverage"
    )
    at: float = Field(gt=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _possible(self) -> Cut:
        if self.by in ("mass", "coverage") and self.at >= 1:
            raise ValueError(f"cut by {self.by}: a share between 0 and 1")
        if self.by == "regions" and self.at != int(self.at):
            raise ValueError("cut by regions: a whole number")
        return self


class AnswerConfig(JobConfig):
    """Base of the configuration of jobs that rank regions."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$", description="name of the ranking; partition column ranking")
    overlay: OverlayInput
    ensemble: str | None = Field(None, description="URI of an ensemble artefact; null: members say what it is made of")
    members: Mapping[str, MemberConfig] = Field({}, description="by name")
    priors: dict[str, PriorConfig] = Field({}, description="by name; also beside an ensemble artefact")
    cut: Cut = Cut(by="mass", at=0.9)
    most: int = Field(1_000, ge=1, description="regions of an image that are written at most")
    coverage: Share | None = Field(
        None, description="of the conformal set whose size is told; null: of the cut, if any"
    )
    by_stratum: bool = Field(False, description="conformal sets with a threshold for each stratum of the artefact")
    thresholds: dict[Share, float] = Field(
        {}, description="without an artefact: thresholds of conformal sets, counted as probability, by coverage"
    )
    least_km2: float | None = Field(
        None, gt=0, description="atoms are joined to regions of at least this area, and nothing finer is told"
    )

    @model_validator(mode="after")
    def _consistent(self) -> AnswerConfig:
        if (self.ensemble is None) == (not self.members):
            raise ValueError("either ensemble or members")
        both = sorted(self.members.keys() & self.priors.keys())
        if both:
            raise ValueError(f"priors: {', '.join(both)}: members have this name")
        if self.ensemble is not None and self.thresholds:
            raise ValueError("thresholds: the ensemble artefact has its own")
        if self.by_stratum and self.ensemble is None:
            raise ValueError("by_stratum: only an ensemble artefact has strata")
        if self.cut.by == "coverage" and self.coverage not in (None, self.cut.at):
            raise ValueError("coverage: that of the cut, or null")
        if self.least_km2 is not None and self.told_coverage is not None:
            raise ValueError("least_km2: conformal sets are sets of atoms; ask for no coverage")
        return self

    @property
    def told_coverage(self) -> float | None:
        """The coverage of the conformal set that the summary describes."""
        return self.cut.at if self.cut.by == "coverage" else self.coverage


class RankConfig(AnswerConfig):
    """Configuration of `rank_regions`. Members have the names that the predictions call them."""

    predictions: list[PredictionsInput] = Field(min_length=1)
