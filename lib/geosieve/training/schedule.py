"""Learning rates: by how much of the training is done, counted in epochs, so that they hold for any number of ranks."""

from __future__ import annotations

from math import cos, pi
from typing import Annotated, Literal

from pydantic import Field, model_validator

from geosieve.runtime.config import Config


class _Warm(Config):
    """The start of a schedule."""

    warmup_steps: int = Field(default=0, ge=0, description="steps in which the rate rises in equal steps")

    def warm(self, step: int) -> float:
        """The share of the rate that the warm-up allows at a step, which counts from 0."""
        return min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0


class Cosine(_Warm):
    """Falls from the full rate to `least` of it along half a cosine, over all epochs (Loshchilov, Hutter 2017)."""

    kind: Literal["cosine"] = "cosine"
    least: float = Field(default=0.0, ge=0, le=1, description="share of the rate at the end")

    def factor(self, step: int, done: float, epochs: int) -> float:
        """The share of the full rate at a step, when `done` of the `epochs` are done."""
        return self.warm(step) * (self.least + (1 - self.least) * (1 + cos(pi * min(1.0, done / epochs))) / 2)


class Steps(_Warm):
    """Multiplied by `factor_at_each` at the start of some epochs; as GeoEstimation trains, halved at 4, 8, 12 to 15."""

    kind: Literal["steps"]
    epochs: list[int] = Field(default=[4, 8, 12, 13, 14, 15], description="epochs, counted from 0, in ascending order")
    factor_at_each: float = Field(default=0.5, gt=0, le=1)

    @model_validator(mode="after")
    def _ascending(self) -> Steps:
        if self.epochs != sorted(set(self.epochs)) or (self.epochs and self.epochs[0] < 0):
            raise ValueError("epochs must be in ascending order, from 0 on")
        return self

    def factor(self, step: int, done: float, epochs: int) -> float:
        """The share of the full rate at a step, when `done` of the `epochs` are done."""
        return float(self.warm(step) * self.factor_at_each ** sum(at <= done for at in self.epochs))


Schedule = Annotated[Cosine | Steps, Field(discriminator="kind")]
