"""Pieces of regions that a grid may miss, because they are narrower than its pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geosieve.geo import plane
from geosieve.geo.arrays import F8, I8


@dataclass(frozen=True)
class Pieces:
    """Disjoint pieces: region (or OUTSIDE, for a hole between regions), exact area, shape (lon, lat); arrays (n,)."""

    region: I8
    area_km2: F8
    shape: NDArray[np.object_]

    def __len__(self) -> int:
        return self.region.size

    def narrow(self, width_km: float) -> Pieces:
        """Those whose mean width, twice their area over their perimeter, is less than `width_km`: a square's is half
        its side, a long strip's its width. Pieces without area are left out.
        """
        chosen = (self.area_km2 > 0) & (2 * self.area_km2 < width_km * plane.perimeters_km(self.shape))
        return Pieces(self.region[chosen], self.area_km2[chosen], self.shape[chosen])


NO_PIECES = Pieces(np.empty(0, np.int64), np.empty(0), np.empty(0, object))
