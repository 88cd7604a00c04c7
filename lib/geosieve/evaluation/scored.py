"""What the driver holds of an evaluation: one short row of numbers an image, in an order that is always the same."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geosieve.geo.arrays import F8

Name = str | tuple[str, str]
"""A system, or a system on the images that it and another one answered."""


@dataclass(frozen=True)
class Answers:
    """One system's answers to n images.

    `angle` (radians on the sphere) and `geodesic_km` to the truth are NaN where there is no prediction; `area_km2`
    that is needed to reach the truth is NaN where it never is, or None as a whole; `hits` (n, 4) as `places.hits`.
    """

    angle: F8
    geodesic_km: F8
    area_km2: F8 | None
    hits: NDArray[np.bool_] | None

    @property
    def missing(self) -> NDArray[np.bool_]:
        """Images without a prediction."""
        return np.isnan(self.angle)


@dataclass(frozen=True)
class Stratum:
    """A way to divide the images: values, and the index of each image's value, shape (n,).

    The last `blanks` values say why an image has none (outside, no data, unknown).
    """

    name: str
    values: tuple[str, ...]
    codes: NDArray[np.int32]
    blanks: int = 0

    @property
    def n_buckets(self) -> int:
        """Values that weigh the same in balanced figures: an image without a value is no sample of any bucket."""
        return len(self.values) - self.blanks


@dataclass(frozen=True)
class Scored:
    """n images: 64-bit `keys` made of their ids, systems' answers by name, strata, and which places have names."""

    keys: NDArray[np.uint64]
    systems: dict[str, Answers]
    strata: tuple[Stratum, ...]
    named: NDArray[np.bool_] | None

    def __len__(self) -> int:
        return int(self.keys.size)
