"""What Google's S2 library says of positions and cells, in degrees and km²."""

from __future__ import annotations

from s2geometry import S2Cell, S2CellId, S2LatLng


def leaf(lat: float, lon: float) -> S2CellId:
    """The leaf cell at a position; longitude 180 is -180, one meridian.

    The library may tell the two longitudes apart: π rounded to a float has a sine above zero, and -π one below.
    """
    return S2CellId(S2LatLng.FromDegrees(lat, -180.0 if lon == 180 else lon))


def degrees(place: S2LatLng) -> tuple[float, float]:
    """Latitude and longitude of a place."""
    return place.lat().degrees(), place.lng().degrees()


def corners(cell: S2CellId) -> list[tuple[float, float]]:
    """Latitude and longitude of the cell's four corners, around it."""
    return [degrees(S2LatLng(S2Cell(cell).GetVertex(k))) for k in range(4)]


def area_km2(cell: S2CellId) -> float:
    """The cell's exact area on a sphere of 6371.0088 km."""
    return float(S2Cell(cell).ExactArea()) * 6371.0088**2
