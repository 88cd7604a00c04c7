"""Configuration of `prepare_training_set`."""

from __future__ import annotations

from pydantic import Field, model_validator

from geosieve.images.photo_rows import PhotoLimits
from geosieve.images.read import ImagesInput
from geosieve.job.publishing import JobConfig
from geosieve.labels.read import LabelsInput
from geosieve.splits.read import ChosenSplits
from geosieve.tables.schema import Table
from geosieve.tables.schemas import training_shards_table


class ChosenLabels(LabelsInput):
    """A committed run of `labels`, and the partitions whose labels the training set gets."""

    partitions: list[str] = Field(min_length=1)


class TrainingSetConfig(JobConfig):
    """Configuration of `prepare_training_set`. ValueError if a partition has the name of a column of the table."""

    name: str = Field(
        pattern=r"^[a-z][a-z0-9_]*$", description="name of the training set; the table's partition column training_set"
    )
    seed: int = Field(ge=0, lt=1 << 31, description="of the random order")
    images: ImagesInput
    labels: ChosenLabels
    splits: ChosenSplits
    limits: PhotoLimits = Field(PhotoLimits(), description="as when the images were ingested")
    side: int = Field(
        320,
        ge=16,
        le=4096,
        description="pixels of the shorter side; larger than what a network sees (224: 320; 299 or 336: 384), so that "
        "crops vary",
    )
    quality: int = Field(90, ge=1, le=100, description="quality of JPEG files")
    rows_per_file: int = Field(2_000, ge=1, le=100_000, description="images per file, at most")
    ranks: int = Field(
        8, ge=1, le=4096, description="processes that train: the number of a split's files is a multiple, at least four"
    )

    @model_validator(mode="after")
    def _columns(self) -> TrainingSetConfig:
        self.table()
        return self

    def table(self) -> Table:
        """The table with a column per partition."""
        return training_shards_table(self.labels.partitions)
