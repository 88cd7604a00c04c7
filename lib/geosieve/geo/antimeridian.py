"""Shapes in longitude and latitude that cross ±180 or hold a pole, brought into the plane [-180, 180] × [-90, 90]."""

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


def unwrap(lon: Floats) -> Floats:
    """Longitudes along a line, made continuous: every step takes the shorter way around. Shape (n,)."""
    return np.asarray(lon[0] + np.r_[0.0, np.cumsum(normalize_lon(np.diff(lon)))])


def turns(unwrapped: Floats) -> int:
    """How often a closed ring of continuous longitudes goes around the Earth: not 0 if it holds one pole."""
    return int(np.round((unwrapped[-1] - unwrapped[0]) / 360.0))


def over_pole(ring: Floats, pole: float) -> Floats:
    """A ring (n, 2) of (continuous lon, lat) that goes around the Earth, closed over the pole at latitude ±90."""
    return np.vstack([ring, [[ring[-1, 0], pole], [ring[0, 0], pole]]])


def wrapped(shape: BaseGeometry) -> BaseGeometry:
    """`shape`, which may reach beyond ±180, cut there and moved into [-180, 180]."""
    first, last = (int(np.floor((shape.bounds[i] + 180.0) / 360.0)) for i in (0, 2))
    parts = [translate(shape, -360.0 * turn).intersection(WORLD) for turn in range(first, last + 1)]
    areas = [part for part in shapely.get_parts(shapely.union_all(parts)) if isinstance(part, Polygon)]
    return areas[0] if len(areas) == 1 else MultiPolygon(areas)


def has_long_edges(shape: BaseGeometry) -> bool:
    """Whether an edge spans more than 180 degrees without ending at ±180: it is meant the other way around."""
    for part in _polygons(shape):
        for ring in (part.exterior, *part.interiors):
            lon = shapely.get_coordinates(ring)[:, 0]
            inner = np.abs(lon) < 180.0
            if (np.abs(np.diff(lon)) > 180.0)[inner[:-1] & inner[1:]].any():
                return True
    return False


def shortest_edges(shape: BaseGeometry) -> BaseGeometry:
    """A shape whose edges take the shorter way around, in the plane: cut at ±180, and closed over its pole."""
    return shapely.union_all([wrapped(_continuous(part)) for part in _polygons(shape)])


def _polygons(shape: BaseGeometry) -> list[Polygon]:
    return [part for part in shapely.get_parts(shape) if isinstance(part, Polygon)]


def _continuous(polygon: Polygon) -> BaseGeometry:
    shell = _ring(shapely.get_coordinates(polygon.exterior))
    middle = (shell[:, 0].min() + shell[:, 0].max()) / 2.0
    holes = []
    for interior in polygon.interiors:
        hole = _ring(shapely.get_coordinates(interior))
        hole[:, 0] += 360.0 * np.round((middle - hole[:, 0].mean()) / 360.0)
        holes.append(hole)
    return shapely.make_valid(Polygon(shell, holes))


def _ring(coordinates: Floats) -> Floats:
    ring = np.column_stack([unwrap(coordinates[:, 0]), coordinates[:, 1]])
    if turns(ring[:, 0]):
        ring = over_pole(ring, float(np.copysign(90.0, ring[:, 1].mean())))
    return ring
