"""Parts of regions that are narrower than the pixels of a grid, so that the grid may miss them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geosieve.geo import plane
from geosieve.geo.arrays import F8, I8


@dataclass(frozen=True)
class Pieces:
    """Disjoint parts of regions, and holes between regions. All arrays have shape (n,).

    region: index of the region, or OUTSIDE for a hole.
    area_km2: exact area on the sphere of mean radius, km².
    shape: shapely geometry, (lon, lat) in degrees.
    """

    region: I8
    area_km2: F8
    shape: NDArray[np.object_]

    def __len__(self) -> int:
        return self.region.size

    def narrow(self, width_km: float) -> Pieces:
        """Return the pieces whose mean width is less than `width_km`, without those of area 0.

        The mean width is 2 · area / perimeter: the width of a long strip, or half the side of a square.
        """
        chosen = (self.area_km2 > 0) & (2 * self.area_km2 < width_km * plane.perimeters_km(self.shape))
        return Pieces(self.region[chosen], self.area_km2[chosen], self.shape[chosen])


NO_PIECES = Pieces(np.empty(0, np.int64), np.empty(0), np.empty(0, object))
