"""Distances and areas on the sphere, and areas on the WGS-84 ellipsoid, for arrays of coordinates in degrees."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

EARTH_RADIUS_KM = 6371.0088  # IUGG mean radius (2a + b) / 3
WGS84_A_KM = 6378.137
WGS84_E2 = (2 - 1 / 298.257223563) / 298.257223563  # squared eccentricity, f (2 - f)

Floats = NDArray[np.float64]


def require(ok: NDArray[np.bool_] | np.bool_, values: NDArray[Any], expected: str) -> None:
    """Raise ValueError if any value is not `ok`; the message has the first such value, its position and `expected`."""
    if not ok.all():
        position = tuple(int(k) for k in np.argwhere(~np.asarray(ok))[0])
        where = f" at position {position[0] if len(position) == 1 else position}" if position else ""
        raise ValueError(f"{values[position]}{where}: {expected}")


def checked_lat(lat: ArrayLike) -> Floats:
    """Return latitudes as float64. ValueError if one is NaN or outside [-90, 90]."""
    lat = np.asarray(lat, dtype=np.float64)
    require(np.abs(lat) <= 90, lat, "a latitude is in [-90, 90] degrees; the order is lat, lon")
    return lat


def checked_lon(lon: ArrayLike) -> Floats:
    """Return longitudes as float64, not wrapped. ValueError if one is NaN or infinite."""
    lon = np.asarray(lon, dtype=np.float64)
    require(np.isfinite(lon), lon, "a longitude is a finite number of degrees")
    return lon


def normalize_lon(lon: ArrayLike) -> Floats:
    """Wrap longitudes, degrees, to [-180, 180) without rounding; values already there stay the same bit for bit.

    Any shape. ValueError if a value is NaN or infinite.
    """
    # fmod is exact. So is the sum of two numbers of unlike sign and within a factor of two (Sterbenz).
    turn = np.fmod(checked_lon(lon), 360.0)
    return np.asarray(np.where(turn >= 180, turn - 360, np.where(turn < -180, turn + 360, turn)))


def haversine_km(
    lat1: ArrayLike, lon1: ArrayLike, lat2: ArrayLike, lon2: ArrayLike, radius_km: float = EARTH_RADIUS_KM
) -> Floats:
    """Great-circle distance on a sphere, km, accurate from nanometres up to the antipode.

    Coordinates are in degrees and their shapes broadcast. ValueError if a latitude is outside [-90, 90] or a coordinate
    is not finite. This is the haversine formula (Sinnott 1984), where the complement 1 - hav is computed as the
    haversine of the distance to the antipode.
    """
    lat1, lon1, lat2, lon2 = checked_lat(lat1), checked_lon(lon1), checked_lat(lat2), checked_lon(lon2)
    # 1 - hav would lose half the digits near the antipode, so both values are sums of non-negative terms.
    half_lon = np.radians(lon2 - lon1) / 2
    cos_cos = np.cos(np.radians(lat1)) * np.cos(np.radians(lat2))
    hav = np.sin(np.radians(lat2 - lat1) / 2) ** 2 + cos_cos * np.sin(half_lon) ** 2
    hav_antipode = np.sin(np.radians(lat2 + lat1) / 2) ** 2 + cos_cos * np.cos(half_lon) ** 2
    return np.asarray(2 * radius_km * np.arctan2(np.sqrt(hav), np.sqrt(hav_antipode)))


def cell_area_km2(
    lat_south: ArrayLike, lat_north: ArrayLike, width_deg: ArrayLike, radius_km: float = EARTH_RADIUS_KM
) -> Floats:
    """Area, km², of cells between two parallels and two meridians on a sphere: R² Δlon (sin north - sin south).

    Angles are in degrees and their shapes broadcast. ValueError if a latitude is outside [-90, 90], south is above
    north, or a width is outside [0, 360].
    """
    south, north, width = _checked_cell(lat_south, lat_north, width_deg)
    return np.asarray(radius_km**2 * np.radians(width) * _sine_difference(south, north))


def authalic_cell_area_km2(lat_south: ArrayLike, lat_north: ArrayLike, width_deg: ArrayLike) -> Floats:
    """Exact area, km², of cells between two parallels and two meridians on the WGS-84 ellipsoid.

    It is a² Δlon / 2 times the difference of the authalic q of both parallels (Snyder 1987, eq. 3-12). Arguments and
    errors as in `cell_area_km2`.
    """
    south, north, width = _checked_cell(lat_south, lat_north, width_deg)
    sin_s, sin_n = np.sin(np.radians(south)), np.sin(np.radians(north))
    difference = _sine_difference(south, north)
    # Each term of q(north) - q(south) is written as a function of sin north - sin south, because subtracting two
    # values of q would leave no correct digits for a small cell near a pole. The two logarithms are combined by the
    # addition theorem of atanh.
    product = WGS84_E2 * sin_s * sin_n
    e = np.sqrt(WGS84_E2)
    rational = difference * (1 + product) / ((1 - WGS84_E2 * sin_s**2) * (1 - WGS84_E2 * sin_n**2))
    logarithm = np.arctanh(e * difference / (1 - product)) / e
    q_difference = (1 - WGS84_E2) * (rational + logarithm)
    return np.asarray(WGS84_A_KM**2 / 2 * np.radians(width) * q_difference)


def _checked_cell(south: ArrayLike, north: ArrayLike, width: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """The bounds of cells as arrays; ValueError as in `cell_area_km2`."""
    lower, upper = np.broadcast_arrays(checked_lat(south), checked_lat(north))
    width = np.asarray(width, dtype=np.float64)
    require(lower <= upper, lower, "the southern latitude of a cell is not above its northern one")
    require((width >= 0) & (width <= 360), width, "the width of a cell is in [0, 360] degrees")
    return lower, upper, width


def _sine_difference(south: Floats, north: Floats) -> Floats:
    """sin(north) - sin(south) as 2 cos(mean) sin(half difference), which does not cancel near the poles."""
    # cos(mean) is the sine of the mean distance to the nearer pole, and this distance has no rounding error near a
    # pole.
    nearer_south = south + north < 0
    to_pole = np.where(nearer_south, (90 + south) + (90 + north), (90 - south) + (90 - north)) / 2
    return np.asarray(2 * np.sin(np.radians(to_pole)) * np.sin(np.radians(north - south) / 2))
