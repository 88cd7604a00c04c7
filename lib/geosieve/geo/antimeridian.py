"""Convert lon-lat shapes that cross ±180 or contain a pole to planar shapes in [-180, 180] × [-90, 90] degrees."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.affinity import translate
from shapely.geometry import MultiPolygon, Polygon, box
from shapely.geometry.base import BaseGeometry

from geosieve.geo.sphere import normalize_lon

WORLD = box(-180.0, -90.0, 180.0, 90.0)

Floats = NDArray[np.float64]

_ROUNDING = 1e-6  # degrees: a tenth of a metre
_POLAR_GAP_DEG = 0.01  # a kilometre
_MULTI = 4  # from this type of shapely's on a geometry has parts


def unwrap(lon: Floats) -> Floats:
    """Longitudes along a line, made continuous: every step takes the shorter way around. Shape (n,)."""
    return np.asarray(lon[0] + np.r_[0.0, np.cumsum(normalize_lon(np.diff(lon)))])


def turns(unwrapped: Floats) -> int:
    """How often a closed ring of continuous longitudes goes around the Earth; not 0 if it contains exactly one pole."""
    return int(np.round((unwrapped[-1] - unwrapped[0]) / 360.0))


def over_pole(ring: Floats, pole: float) -> Floats:
    """A ring (n, 2) of (continuous lon, lat) that goes around the Earth, closed over the pole at latitude ±90."""
    return np.vstack([ring, [[ring[-1, 0], pole], [ring[0, 0], pole]]])


def wrapped(shape: BaseGeometry) -> BaseGeometry:
    """Cut a shape that may extend beyond ±180 there, and move the parts into [-180, 180]."""
    first, last = (int(np.floor((shape.bounds[i] + 180.0) / 360.0)) for i in (0, 2))
    parts = [translate(shape, -360.0 * turn).intersection(WORLD) for turn in range(first, last + 1)]
    areas = [part for part in shapely.get_parts(shapely.union_all(parts)) if isinstance(part, Polygon)]
    return areas[0] if len(areas) == 1 else MultiPolygon(areas)


def polygons_of(shape: BaseGeometry) -> list[Polygon]:
    """The polygons of a shape, also those in collections of collections. ValueError if it holds points or lines."""
    parts = np.array([shape])
    while (shapely.get_type_id(parts) >= _MULTI).any():  # one level of nesting at a time
        parts = shapely.get_parts(parts)
    others = sorted({part.geom_type for part in parts if not isinstance(part, Polygon)})
    if others:
        raise ValueError(f"it holds a {' and a '.join(others)}, and a region is an area")
    return [part for part in parts if not part.is_empty]


def crosses(shape: BaseGeometry) -> bool:
    """Whether the shape has an edge longer than 180 degrees that is meant to take the shorter way, across ±180.

    There are two exceptions, in which a long edge is meant as drawn in the plane: an edge along a pole, and an edge
    along a parallel from ±180 to ∓180 between two edges on that meridian. The latter closes a shape that spans the
    world and was cut at ±180 (RFC 7946, section 3.1.9).
    """
    return any(_crosses(ring) for polygon in polygons_of(shape) for ring in _rings(polygon))


def shortest_edges(shape: BaseGeometry) -> BaseGeometry:
    """Convert a shape whose edges take the shorter way around to the plane: cut at ±180, and closed over a pole.

    A ring that goes around the Earth is closed over the nearer pole. Rings combine by the even-odd rule: a polygon is
    the set of points inside an odd number of its rings. ValueError if the inside of a ring is ambiguous.
    """
    return shapely.union_all([_even_odd(polygon) for polygon in polygons_of(shape)])


def areas_of(shape: BaseGeometry) -> BaseGeometry:
    """The polygons of a shape as a valid Polygon or MultiPolygon. A shape that already is one is returned unchanged.

    ValueError if the shape contains points or lines. Points and lines that result from the repair are dropped.
    """
    polygons = polygons_of(shape)
    valid = shapely.make_valid(shape if shape.geom_type.endswith("Polygon") else shapely.union_all(polygons))
    if valid.geom_type.endswith("Polygon"):
        return valid
    parts = shapely.get_parts(shapely.get_parts(valid))
    return shapely.union_all([part for part in parts if isinstance(part, Polygon)])


def _rings(polygon: Polygon) -> list[Floats]:
    """The rings as vertices (lon, lat), shape (n, 2), the first only once and none twice in a row."""
    rings = [shapely.get_coordinates(ring) for ring in (polygon.exterior, *polygon.interiors)]
    return [ring[:-1][(ring[:-1] != ring[1:]).any(axis=1)] for ring in rings]


def _crosses(ring: Floats) -> bool:
    lon, lat = ring.T
    after_lon, after_lat = np.roll(ring, -1, axis=0).T
    long = np.abs(after_lon - lon) > 180.0
    along_a_pole = (np.abs(lat) >= 90.0 - _ROUNDING) & (np.abs(after_lat) >= 90.0 - _ROUNDING)
    level = np.abs(after_lat - lat) <= _ROUNDING
    on_meridian = np.abs(np.abs(lon) - 180.0) <= _ROUNDING
    # Whether the edge from each vertex runs along +180, or along -180.
    meridian = on_meridian & np.roll(on_meridian, -1) & ~long & ~level
    around = on_meridian & np.roll(on_meridian, -1) & level & np.roll(meridian, 1) & np.roll(meridian, -1)
    return bool((long & ~along_a_pole & ~around).any())


def _even_odd(polygon: Polygon) -> BaseGeometry:
    rings = _rings(polygon)
    # Some files (Natural Earth's Antarctica) leave out the last metres at the pole, which no one means as a hole.
    kept = [ring for ring in rings if not (_crosses(ring) and np.abs(ring[:, 1]).min() > 90.0 - _POLAR_GAP_DEG)]
    held = Polygon()
    for ring in kept or rings:
        held = held.symmetric_difference(_held(ring))
    return held


def _held(ring: Floats) -> BaseGeometry:
    """What one ring holds, in the plane."""
    if not _crosses(ring):
        return _wrapped_once(shapely.make_valid(Polygon(ring)))
    closed = np.vstack([ring, ring[:1]])
    steps = np.abs(normalize_lon(np.diff(closed[:, 0])))
    if ((steps == 180.0) & (np.abs(closed[:-1, 1]) < 90.0) & (np.abs(closed[1:, 1]) < 90.0)).any():
        raise ValueError("an edge of exactly 180 degrees has no shorter way around")
    line = np.column_stack([unwrap(closed[:, 0]), closed[:, 1]])
    if abs(turns(line[:, 0])) > 1:
        raise ValueError("a ring goes around the Earth more than once")
    if turns(line[:, 0]):
        mean = float(np.average(line[1:, 1] + line[:-1, 1], weights=np.diff(line[:, 0])))
        if abs(mean) < _ROUNDING:
            raise ValueError("a ring along the equator may hold either half of the Earth")
        line = over_pole(line, float(np.copysign(90.0, mean)))
    return _wrapped_once(shapely.make_valid(Polygon(line)))


def _wrapped_once(shape: BaseGeometry) -> BaseGeometry:
    """`wrapped`. ValueError if parts of the shape come to lie on each other: it goes around the Earth and on."""
    found = wrapped(shape)
    if found.area < shape.area * (1 - _ROUNDING):
        raise ValueError("a ring goes around the Earth and overlaps itself")
    return found
