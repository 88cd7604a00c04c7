"""Configuration of `fit_ensemble`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from geosieve.job.publishing import JobConfig
from geosieve.overlay.read import OverlayInput
from geosieve.runtime.config import Config
from geosieve.training.train_config import ShardsInput

Coverage = Annotated[float, Field(gt=0, lt=1)]


class PredictorInput(Config):
    """A predictor, and which of its partitions becomes a member of the ensemble."""

    uri: str = Field(description="folder of the artefact")
    partition: str = Field(description="a partition of the predictor and of the overlay")


class ValidationInput(ShardsInput):
    """The split of a committed run of `training_shards` on which an ensemble is fitted."""

    split: str = "validation"


class FitEnsembleConfig(JobConfig):
    """Configuration of `fit_ensemble`."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$", description="name of the ensemble; partition column ensemble")
    overlay: OverlayInput
    members: dict[str, PredictorInput] = Field(min_length=1, description="by the member's name")
    shards: ValidationInput
    calibration_share: float = Field(
        0.5, gt=0, lt=1, description="of the images: they set thresholds, the others weights and temperatures"
    )
    coverages: list[Coverage] = Field([0.5, 0.9], min_length=1, description="of conformal sets")
    strata: str | None = Field(
        None, description="a partition of the overlay, e.g. density buckets: thresholds for each of its regions, too"
    )
    device: str = Field("cpu", description="of PyTorch, e.g. cuda")

    @model_validator(mode="after")
    def _ascending(self) -> FitEnsembleConfig:
        if self.coverages != sorted(set(self.coverages)):
            raise ValueError("coverages must be in ascending order, each once")
        return self
