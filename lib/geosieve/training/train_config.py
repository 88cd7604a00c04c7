"""Configuration of `train_predictor`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from geosieve.job.publishing import JobConfig
from geosieve.models.preprocessing import OverCrops, Preprocessing
from geosieve.runtime.config import Config, RunId
from geosieve.training.schedule import Cosine, Schedule


class ShardsInput(Config):
    """A committed run of `training_shards`."""

    root: str
    name: str = Field(description="name of the training set")
    run: RunId = Field(default="latest", description="a run id or `latest`")


class TrainingSplits(ShardsInput):
    """A committed run of `training_shards`, and which of its splits are used for what."""

    train: str = "train"
    validation: str = "validation"


class Head(Config):
    """One partition that the predictor tells, and its loss."""

    weight: float = Field(default=1.0, gt=0, description="of its loss in the sum")
    smoothing: float = Field(default=0.0, ge=0, lt=1, description="share of the target that is spread over all regions")
    haversine_km: float | None = Field(
        default=None,
        gt=0,
        description="targets that fall off with distance from the image, by exp(-km / this); PIGEON: 65-75",
    )


class Augmentation(Config):
    """How a training image is changed each time that it is seen."""

    scale: tuple[float, float] = Field(
        default=(0.66, 1.0), description="least and greatest share of the area that is cropped"
    )
    ratio: tuple[float, float] = Field(
        default=(3 / 4, 4 / 3), description="least and greatest width over height of the crop"
    )
    horizontal_flip: float = Field(default=0.5, ge=0, le=1, description="probability")
    vertical_flip: float = Field(default=0.0, ge=0, le=1, description="probability")
    brightness: float = Field(
        default=0.0, ge=0, description="factor between 1 - this and 1 + this; so are the next two"
    )
    contrast: float = Field(default=0.0, ge=0)
    saturation: float = Field(default=0.0, ge=0)
    hue: float = Field(default=0.0, ge=0, le=0.5, description="shift between -this and this of the circle of colours")

    @model_validator(mode="after")
    def _ranges(self) -> Augmentation:
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"scale: two shares in ascending order, above 0 and at most 1, not {self.scale}")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"ratio: two numbers above 0 in ascending order, not {self.ratio}")
        return self


class LoaderOptions(Config):
    """How images are read."""

    workers: int = Field(
        default=2,
        ge=0,
        le=64,
        description="processes per training process that read, decode and change images, each one stream of files; "
        "they are part of the order of images. 0: one stream in the training process",
    )


class Optimizer(Config):
    """How weights follow gradients."""

    kind: Literal["sgd", "adamw"] = "sgd"
    rate: float = Field(default=0.01, gt=0, description="learning rate of the heads")
    backbone_rate: float | None = Field(
        default=None, ge=0, description="of the backbone, if other; 0: its weights stay"
    )
    momentum: float = Field(default=0.9, ge=0, lt=1, description="of sgd")
    decay: float = Field(default=1e-4, ge=0, description="weight decay")


class ClassBalance(Config):
    """Images of rare regions are seen more often: by (1 / images of the region) ** power, before normalisation."""

    partition: str
    power: float = Field(default=0.5, gt=0, le=1, description="1: every region is seen equally often")


class CheckpointOptions(Config):
    """How often and how many states are kept, so that training can be continued."""

    every_steps: int = Field(default=500, ge=1)
    keep: int = Field(default=2, ge=1, description="the last ones; the best is kept as well")


class TrainConfig(JobConfig):
    """Configuration of `train_predictor`."""

    name: str = Field(
        pattern=r"^[a-z][a-z0-9_]*$", description="name of the predictor; the table's partition column predictor"
    )
    seed: int = Field(ge=0, lt=1 << 31)
    shards: TrainingSplits
    backbone: str = Field(default="resnetv2_50x1_bit.goog_in21k", description="name of timm")
    weights: str | None = Field(
        default=None, description="file of initial weights of the backbone: a path or package:NAME/PATH; null: random"
    )
    heads: dict[str, Head] = Field(min_length=1, description="by the name of the partition")
    over_crops: OverCrops = Field(default="mean", description="how the probabilities of several crops are combined")
    onnx: bool = Field(default=True, description="write network.onnx, too, with which archives are scanned on CPUs")
    family: list[str] = Field(
        default=[],
        description="heads of which each is a refinement of the one before, the coarsest first; see inference rules",
    )
    dropout: float = Field(default=0.0, ge=0, lt=1)
    preprocessing: Preprocessing = Preprocessing()
    augmentation: Augmentation = Augmentation()
    loader: LoaderOptions = LoaderOptions()
    batch: int = Field(default=128, ge=1, description="images per process and step")
    accumulate: int = Field(default=1, ge=1, description="batches whose gradients are added up for a step")
    epochs: int = Field(ge=1)
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Cosine()
    precision: Literal["float32", "bfloat16"] = Field(
        default="float32", description="bfloat16: on a GPU, where it is faster"
    )
    compression: Literal["none", "fp16"] = Field(default="none", description="of gradients between processes")
    ema: float | None = Field(
        default=None, gt=0, lt=1, description="moving average of weights that is evaluated and kept: its decay per step"
    )
    balance: ClassBalance | None = None
    early_stopping: int | None = Field(default=None, ge=1, description="epochs without a better validation loss")
    checkpoints: CheckpointOptions = CheckpointOptions()
    tensorboard: str | None = Field(default=None, description="local folder for TensorBoard's files")
    processes: int = Field(
        default=1, ge=1, description="processes that train, if this job starts them (not under horovodrun)"
    )

    @model_validator(mode="after")
    def _known_heads(self) -> TrainConfig:
        unknown = [name for name in self.family if name not in self.heads]
        if unknown or len(set(self.family)) != len(self.family) or len(self.family) == 1:
            raise ValueError(f"family: two or more of the heads ({', '.join(self.heads)}), each once")
        if self.shards.train == self.shards.validation:
            raise ValueError("shards: train and validation must be two splits")
        return self
