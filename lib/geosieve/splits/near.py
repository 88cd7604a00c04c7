"""Find the points that lie near other points, by exact great-circle distances. Arrays only, no Spark.

To limit the comparisons, points are grouped by cubes of three-dimensional space around the unit sphere. Unlike cells in
latitude and longitude, cubes need no special treatment at the poles and the antimeridian.
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

_AXIS_BITS = 21  # three axes fit into 63 bits
_LEAST_SIDE = 2.0**-18  # 24 m; the grid of 2 / side cubes per axis fits easily into those bits
_MAX_DIAGONAL = 2.438654594434021  # of an S2 cell of level 0, radians; halves with each level (S2's s2metrics.cc)
_CORNERS = np.stack(np.meshgrid(*[[-1.0, 1.0]] * 3, indexing="ij"), axis=-1).reshape(8, 3)


def chord(km: float) -> float:
    """Chord length on the unit sphere for a great-circle distance of `km`.

    It is rounded up by more than the rounding error of coordinates, so a search by chord misses no point within `km`.
    """
    return float(2 * np.sin(min(km / (2 * EARTH_RADIUS_KM), np.pi / 2))) * (1 + 1e-9) + 1e-14


def level_within(km: float) -> int:
    """The coarsest S2 level at which any two points of one cell are at most `km` apart; 30 if there is none."""
    return int(np.clip(np.ceil(np.log2(_MAX_DIAGONAL * EARTH_RADIUS_KM / km)), 0, MAX_LEVEL))


@dataclass(frozen=True)
class Cubes:
    """A grid of cubes with this `side` (in Earth radii). An int64 identifies each cube."""

    side: float

    @classmethod
    def for_balls(cls, km: float) -> Cubes:
        """Cubes large enough that a ball of radius `km` (great circle) touches at most eight."""
        return cls(max(2 * chord(km), _LEAST_SIDE))

    def of(self, xyz: Floats) -> Ints:
        """The cube that contains each point: unit vectors of shape (..., 3) to ids of shape (...,)."""
        # Balls can extend beyond the grid, by at most 2 Earth radii. Those parts belong to the cubes at its edge.
        index = np.clip(np.floor((xyz + 1) / self.side), 0, (1 << _AXIS_BITS) - 1).astype(np.int64)
        return np.asarray((index[..., 0] << 2 * _AXIS_BITS) | (index[..., 1] << _AXIS_BITS) | index[..., 2])

    def touched(self, xyz: Floats, km: float) -> tuple[Ints, Ints]:
        """The cubes that the ball of radius `km` around each point touches, at most eight per point.

        `xyz`: unit vectors, shape (n, 3). Returns two arrays of shape (pairs,): row index in `xyz`, and cube id.
        """
        cubes = np.sort(self.of(xyz[:, None, :] + chord(km) * _CORNERS), axis=1)
        new = np.ones(cubes.shape, dtype=bool)
        new[:, 1:] = cubes[:, 1:] != cubes[:, :-1]
        return np.nonzero(new)[0], cubes[new]


def nearest_km(lat: Floats, lon: Floats, other_lat: Floats, other_lon: Floats, km: float) -> Floats:
    """Great-circle distance in km from each point to the nearest of the others; NaN where none is within `km`.

    Coordinates in degrees: `lat`, `lon` of shape (n,), the others of shape (m,). Returns shape (n,). The limit `km`
    itself counts as within.
    """
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
    """As `nearest_km`, among the others that have a lower rank than the point. Ranks have shapes (n,) and (m,).

    Time and memory grow with the number of pairs within `km`, so thin both sides first.
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
