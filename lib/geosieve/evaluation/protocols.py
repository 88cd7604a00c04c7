"""Distances and accuracy as each published protocol defines them, and the areas for Recall vs Area.

The protocols differ in the shape and radius of the Earth, and in whether a distance equal to the threshold is a hit.
For a north-south pair about 200 km apart, this decides whether it is a hit at 200 km. Every figure therefore names its
protocol.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyproj
from numpy.typing import ArrayLike, NDArray

from geosieve.geo.arrays import F8
from geosieve.geo.sphere import EARTH_RADIUS_KM, haversine_km

THRESHOLDS_KM = (1.0, 25.0, 200.0, 750.0, 2500.0)
"""Thresholds for street, city, region, country and continent, km."""

EARTH_AREA_KM2 = float(4 * np.pi * EARTH_RADIUS_KM**2)
"""Surface of the sphere of radius 6371.0088 km, km²."""

_SCORE_KM = 1492.7
_WGS84 = pyproj.Geod(ellps="WGS84")


@dataclass(frozen=True)
class Protocol:
    """How a published evaluation measures distances and counts hits.

    `radius_km`: radius of the sphere; None: geodesics on the WGS-84 ellipsoid. `inclusive`: a distance equal to the
    threshold is a hit. `geoscore`: whether GeoScore is rounded to integers; None: the protocol has no GeoScore.
    """

    name: str
    radius_km: float | None
    inclusive: bool
    geoscore: Literal["real", "integer"] | None = None

    def distance_km(self, angle: ArrayLike, geodesic_km: ArrayLike) -> F8:
        """Distances under this protocol, km, given the angles on the sphere (radians) and the geodesics (km)."""
        if self.radius_km is None:
            return np.asarray(geodesic_km, np.float64)
        return self.radius_km * np.asarray(angle, np.float64)

    def hit(self, distance_km: F8, threshold_km: float) -> NDArray[np.bool_]:
        """Whether each distance is a hit at the threshold. NaN (no prediction) never is."""
        return np.asarray(distance_km <= threshold_km if self.inclusive else distance_km < threshold_km)

    def score(self, distance_km: F8) -> F8:
        """GeoScore of each distance d in km: 5000 exp(-d / 1492.7). ValueError if the protocol has no GeoScore."""
        if self.geoscore is None:
            raise ValueError(f"protocol {self.name} has no GeoScore")
        score = 5000 * np.exp(-distance_km / _SCORE_KM)
        return np.asarray(np.rint(score) if self.geoscore == "integer" else score)


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol("geoestimation", 6371.0, inclusive=True),
        Protocol("osv5m", 6371.0, inclusive=False, geoscore="real"),  # also used by PLONK
        Protocol("pigeon", 6378.137, inclusive=False, geoscore="integer"),
        Protocol("geoclip", None, inclusive=True),
        Protocol("g3", None, inclusive=False),
    )
}


def angles(lat1: ArrayLike, lon1: ArrayLike, lat2: ArrayLike, lon2: ArrayLike) -> F8:
    """Great-circle angles between points, radians, by the haversine formula.

    Points in degrees; shapes are broadcast. ValueError as `haversine_km`.
    """
    return haversine_km(lat1, lon1, lat2, lon2, radius_km=1.0)


def geodesics_km(lat1: F8, lon1: F8, lat2: F8, lon2: F8) -> F8:
    """Lengths of WGS-84 geodesics, km, (n,), between points in degrees, (n,). Computed by PROJ (Karney 2013)."""
    # pyproj treats an array of length 1 as a number, and warns. One additional point avoids this.
    start_lat, start_lon, end_lat, end_lon = (np.append(values, 0.0) for values in (lat1, lon1, lat2, lon2))
    _, _, metres = _WGS84.inv(start_lon, start_lat, end_lon, end_lat)
    return np.asarray(metres[:-1] / 1000)


def cap_area_km2(radius_km: ArrayLike) -> F8:
    """Area of spherical caps, km²: 2 pi R^2 (1 - cos(r / R)), R = 6371.0088 km; the radius r is along the surface."""
    # Computed as 4 pi R^2 sin^2(r / 2R): for small caps, 1 - cos would lose precision.
    return np.asarray(EARTH_AREA_KM2 * np.sin(np.asarray(radius_km, np.float64) / (2 * EARTH_RADIUS_KM)) ** 2)


def log_area_score(area_km2: F8) -> F8:
    """The contribution of each image to the summary of the Recall-vs-Area curve, in [0, 1].

    The summary ("aurc") is the mean of the recall over log10(area), from the cap of 1 km radius to the whole Earth.
    Recall is a mean of step functions, one per image. So the summary is also the mean over the images of
    (log E - log max(area, cap)) / (log E - log cap), where E is the Earth's area.
    If the truth is never reached, `area_km2` is NaN or infinite, and the contribution is 0.
    """
    cap = cap_area_km2(1.0)
    reached = np.where(np.isfinite(area_km2), np.clip(area_km2, cap, EARTH_AREA_KM2), EARTH_AREA_KM2)
    return np.asarray(np.log(EARTH_AREA_KM2 / reached) / np.log(EARTH_AREA_KM2 / cap))
