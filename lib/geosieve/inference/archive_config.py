"""Configuration of `geolocate_archive`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from geosieve.images.sources import PhotoSource
from geosieve.inference.image_predictors import Recipe
from geosieve.inference.ranking_config import AnswerConfig, MemberConfig, Share
from geosieve.runtime.config import Config

RETRIED = ("missing_file", "changed_content", "decoder_timeout", "decoder_crashed", "predictor_failed")


class PredictorConfig(MemberConfig):
    """A member of the ensemble: an artefact, or a class of somebody else, and which of its partitions it tells."""

    predictor: str | None = Field(None, description="URI of an artefact")
    implementation: str | None = Field(
        None, pattern=r"^[\w.]+:\w+$", description="module:class, an ImagePredictor that every executor can import"
    )
    options: dict[str, str | int | float | bool] = Field({}, description="arguments of the class; local files only")

    @model_validator(mode="after")
    def _one(self) -> PredictorConfig:
        if (self.predictor is None) == (self.implementation is None):
            raise ValueError("a member has either a predictor or an implementation")
        if self.predictor is not None and self.options:
            raise ValueError("options: an artefact has none")
        return self

    @property
    def recipe(self) -> Recipe:
        """How to make it."""
        return Recipe(self.predictor, self.implementation, json.dumps(self.options, sort_keys=True))


class RunLimits(Config):
    """Where a run ends although there is more. It commits what it has, and the next run goes on."""

    minutes: float | None = Field(
        default=None, gt=0, description="no image is begun later than this after the run's start"
    )
    images: int | None = Field(default=None, ge=1, description="images that predictors look at")


class GeolocateConfig(AnswerConfig):
    """Configuration of `geolocate_archive`."""

    source: PhotoSource
    members: Mapping[str, PredictorConfig] = Field({}, description="by name; or an ensemble artefact")
    since: Literal["last", "beginning"] = Field(
        "last", description="last: files that no earlier run of the ranking is done with; beginning: all files"
    )
    retry: list[str] = Field(
        list(RETRIED), description="error classes of rejects of earlier runs, whose files are looked at again"
    )
    limits: RunLimits = RunLimits()
    images_per_part: int = Field(20_000, ge=1, description="a part is kept when the driver dies")
    batch: int = Field(32, ge=1, description="pictures that a predictor sees at once")
    device: str = Field("cpu", description="of PyTorch; where Spark gives tasks GPUs, they are used")
    top: int = Field(16, ge=1, description="most probable regions of each predictor that `predictions` keeps")
    keep_positions: bool = Field(False, description="copy positions of EXIF to `images`; predictors never see them")
    claim_level: Share | None = Field(
        None, description="test positions of EXIF: those with a p-value below it contradict; null: no test"
    )
    domain_level: Share | None = Field(
        None, description="images with a p-value below it are out of the domain; null: no test"
    )
    lock_minutes: float = Field(10, gt=0, description="without a sign of life for so long, another run takes over")

    @model_validator(mode="after")
    def _possible(self) -> GeolocateConfig:
        if not self.source.fingerprint:
            raise ValueError("source.fingerprint: images are told apart by what they contain")
        return self
