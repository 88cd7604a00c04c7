"""Which points lie near others: exact great-circle distances among points brought together by cubes.

Cubes divide the space around the unit sphere, so that there are no poles and no meridian to treat apart. numpy only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from geosieve.geo.outlines import unit_vectors
from geosieve.geo.s2 import MAX_LEVEL
from geosieve.geo.sphere import EARTH_RADIUS_KM, Floats, haversine_km

Ints = NDArray[np.int64]

_AXIS_BITS = 21  # three axes in 63 bits
_LEAST_SIDE = 2.0**-18  # 24 m; 2 / side stays well within those bits
_MAX_DIAGONAL = 2.438654594434021  # of an S2 cell of level 0, radians; halves with each level (S2's s2metrics.cc)
_CORNERS = np.stack(np.meshgrid(*[[-1.0, 1.0]] * 3, indexing="ij"), axis=-1).reshape(8, 3)


def chord(km: float) -> float:
    """Straight distance on the unit sphere of points `km` apart, rounded up by more than the error of coordinates."""
    return float(2 * np.sin(min(km / (2 * EARTH_RADIUS_KM), np.pi / 2))) * (1 + 1e-9) + 1e-14


def level_within(km: float) -> int:
    """The coarsest S2 level at which any two points of one cell are at most `km` apart, or 30."""
    return int(np.clip(np.ceil(np.log2(_MAX_DIAGONAL * EARTH_RADIUS_KM / km)), 0, MAX_LEVEL))


@dataclass(frozen=True)
class Cubes:
    """Cubes of this `side` (unit: Earth radius), named by an int64 each."""

    side: float

    @classmethod
    def for_balls(cls, km: float) -> Cubes:
        """Cubes so large that a ball of radius `km` touches at most eight."""
        return cls(max(2 * chord(km), _LEAST_SIDE))

    def of(self, xyz: Floats) -> Ints:
        """The cube of each point, shape (..., 3) to (...,)."""
        # Balls reach at most one radius of 2 beyond the sphere; what is beyond the grid joins its edge.
        index = np.clip(np.floor((xyz + 1) / self.side), 0, (1 << _AXIS_BITS) - 1).astype(np.int64)
        return np.asarray((index[..., 0] << 2 * _AXIS_BITS) | (index[..., 1] << _AXIS_BITS) | index[..., 2])

    def touched(self, xyz: Floats, km: float) -> tuple[Ints, Ints]:
        """The cubes that a ball around each point touches: positions in `xyz`, and cubes; at most eight a point."""
        cubes = np.sort(self.of(xyz[:, None, :] + chord(km) * _CORNERS), axis=1)
        new = np.ones(cubes.shape, dtype=bool)
        new[:, 1:] = cubes[:, 1:] != cubes[:, :-1]
        return np.nonzero(new)[0], cubes[new]


def nearest_km(lat: Floats, lon: Floats, other_lat: Floats, other_lon: Floats, km: float) -> Floats:
    """Great-circle distance to the nearest of the others, shape (n,); NaN where none is at most `km` away."""
    found = np.full(lat.size, np.nan)
    if other_lat.size:
        _, nearest = cKDTree(unit_vectors(other_lat, other_lon)).query(
            unit_vectors(lat, lon), distance_upper_bound=np.nextafter(chord(km), np.inf)
        )
        has = np.nonzero(nearest < other_lat.size)[0]
        found[has] = haversine_km(lat[has], lon[has], other_lat[nearest[has]], other_lon[nearest[has]])
        found[found > km] = np.nan
    return found


def preceded(
    lat: Floats, lon: Floats, rank: Ints, other_lat: Floats, other_lon: Floats, other_rank: Ints, km: float
) -> Floats:
    """Distance to the nearest of the others with a lower rank, shape (n,); NaN where none is at most `km` away.

    Time and memory grow with the pairs of points near each other, so both sides should be thinned before.
    """
    found = np.full(lat.size, np.inf)
    if other_lat.size and lat.size:
        pairs = cKDTree(unit_vectors(lat, lon)).sparse_distance_matrix(
            cKDTree(unit_vectors(other_lat, other_lon)), chord(km), output_type="ndarray"
        )
        pairs = pairs[other_rank[pairs["j"]] < rank[pairs["i"]]]
        i, j = pairs["i"], pairs["j"]
        np.minimum.at(found, i, haversine_km(lat[i], lon[i], other_lat[j], other_lon[j]))
    return np.where(found <= km, found, np.nan)
