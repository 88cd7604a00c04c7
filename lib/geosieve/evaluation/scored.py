"""The driver's data of an evaluation: arrays with one entry per image, in a reproducible order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geosieve.geo.arrays import F8

Name = str | tuple[str, str]
"""A system, or a pair (system, other): the system restricted to the images for which both have a prediction."""


@dataclass(frozen=True)
class Answers:
    """One system's answers for n images.

    `angle` and `geodesic_km`: distance between prediction and truth, (n,), as an angle on the sphere in radians and as
    a WGS-84 geodesic in km; NaN if there is no prediction.
    `area_km2`: area of the ranked regions up to the one that contains the truth, (n,); NaN if none contains it. None if
    the system reports no areas.
    `hits`: whether the place names agree at each level, (n, 4), as in `places.hits`. None if places are not evaluated.
    `refused`: error class of each image's prediction, (n,), where it was refused, so that the image has none; else
    NaN. None if no prediction was refused.
    """

    angle: F8
    geodesic_km: F8
    area_km2: F8 | None
    hits: NDArray[np.bool_] | None
    refused: pd.Categorical | None = None

    @property
    def missing(self) -> NDArray[np.bool_]:
        """Whether each image lacks a prediction, (n,)."""
        return np.isnan(self.angle)


@dataclass(frozen=True)
class Stratum:
    """A division of n images by one property.

    `values`: its values. `codes`: the index into `values` for each image, (n,). `blanks`: how many values at the end of
    `values` stand for images without a value; they give the reason (outside, no data, unknown).
    """

    name: str
    values: tuple[str, ...]
    codes: NDArray[np.int32]
    blanks: int = 0

    @property
    def n_buckets(self) -> int:
        """The number of buckets, that is of values without blanks. Balanced figures give each the same weight."""
        return len(self.values) - self.blanks


@dataclass(frozen=True)
class Scored:
    """The scores of n images.

    `keys`: 64-bit hashes of the image ids, (n,). `systems`: the answers of each system, by its name. `named`: whether
    the true place has a name at each level, (n, 4); None if places are not evaluated.
    """

    keys: NDArray[np.uint64]
    systems: dict[str, Answers]
    strata: tuple[Stratum, ...]
    named: NDArray[np.bool_] | None

    def __len__(self) -> int:
        return int(self.keys.size)
