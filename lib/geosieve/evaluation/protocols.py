"""Distances and accuracy as each published protocol counts them, and the areas of Recall vs Area.

The protocols differ in the Earth's shape and radius and in whether a distance equal to a threshold is a hit; a
north-south pair exactly 200 km apart changes sides. Every figure therefore names its protocol.
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
"""Street, city, region, country, continent."""

EARTH_AREA_KM2 = float(4 * np.pi * EARTH_RADIUS_KM**2)

_SCORE_KM = 1492.7
_WGS84 = pyproj.Geod(ellps="WGS84")


@dataclass(frozen=True)
class Protocol:
    """A way to count. `radius_km` of the sphere, or None for WGS-84 geodesics; `inclusive`: a hit is <=, not <."""

    name: str
    radius_km: float | None
    inclusive: bool
    geoscore: Literal["real", "integer"] | None = None

    def distance_km(self, angle: ArrayLike, geodesic_km: ArrayLike) -> F8:
        """This protocol's distances, km, given angles on the sphere (radians) and geodesics (km)."""
        if self.radius_km is None:
            return np.asarray(geodesic_km, np.float64)
        return self.radius_km * np.asarray(angle, np.float64)

    def hit(self, distance_km: F8, threshold_km: float) -> NDArray[np.bool_]:
        """Whether each distance counts as within the threshold; NaN, a missing prediction, never does."""
        return np.asarray(distance_km <= threshold_km if self.inclusive else distance_km < threshold_km)

    def score(self, distance_km: F8) -> F8:
        """GeoScore, 5000 exp(-d / 1492.7), of each distance; ValueError if the protocol has none."""
        if self.geoscore is None:
            raise ValueError(f"protocol {self.name} has no GeoScore")
        score = 5000 * np.exp(-distance_km / _SCORE_KM)
        return np.asarray(np.rint(score) if self.geoscore == "integer" else score)


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol("geoestimation", 6371.0, inclusive=True),
        Protocol("osv5m", 6371.0, inclusive=False, geoscore="real"),  # PLONK too
        Protocol("pigeon", 6378.137, inclusive=False, geoscore="integer"),
        Protocol("geoclip", None, inclusive=True),
        Protocol("g3", None, inclusive=False),
    )
}


def angles(lat1: ArrayLike, lon1: ArrayLike, lat2: ArrayLike, lon2: ArrayLike) -> F8:
    """Great-circle angles, radians, between points in degrees; haversine formula."""
    return haversine_km(lat1, lon1, lat2, lon2, radius_km=1.0)


def geodesics_km(lat1: F8, lon1: F8, lat2: F8, lon2: F8) -> F8:
    """Lengths of WGS-84 geodesics, km, between points in degrees, shape (n,); Karney 2013, by PROJ."""
    # pyproj takes an array of one for a number, and warns: one more point is given.
    start_lat, start_lon, end_lat, end_lon = (np.append(values, 0.0) for values in (lat1, lon1, lat2, lon2))
    _, _, metres = _WGS84.inv(start_lon, start_lat, end_lon, end_lat)
    return np.asarray(metres[:-1] / 1000)


def cap_area_km2(radius_km: ArrayLike) -> F8:
    """Area, km2, of spherical caps of a radius along the surface: 2 pi R^2 (1 - cos(r / R)), R = 6371.0088 km."""
    # As 4 pi R^2 sin^2(r / 2R): 1 - cos would lose the digits of a small cap.
    return np.asarray(EARTH_AREA_KM2 * np.sin(np.asarray(radius_km, np.float64) / (2 * EARTH_RADIUS_KM)) ** 2)


def log_area_score(area_km2: F8) -> F8:
    """Each image's part in the summary of its Recall-vs-Area curve: in [0, 1], 0 where the truth is never reached.

    The summary ("aurc") is the mean of recall over log10(area), from the cap of 1 km radius to the whole Earth. Recall
    is a mean of steps, one an image, so that it is also the mean over images of
    (log E - log max(area, cap)) / (log E - log cap). `area_km2` NaN or infinite: never reached.
    """
    cap = cap_area_km2(1.0)
    reached = np.where(np.isfinite(area_km2), np.clip(area_km2, cap, EARTH_AREA_KM2), EARTH_AREA_KM2)
    return np.asarray(np.log(EARTH_AREA_KM2 / reached) / np.log(EARTH_AREA_KM2 / cap))
