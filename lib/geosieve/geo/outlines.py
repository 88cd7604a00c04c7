"""Areas bounded by great circles: their size, cutting them, and their outlines in the plane of longitude and latitude.

A polygon is an array (m, 3) of unit vectors around it, edges shorter than 180°. In the plane it must be cut at ±180 and
closed over the poles; both lie on the edges of octants (quarters of a hemisphere), so a polygon inside one octant needs
neither. Cells of S2 from level 1 on are inside one; others are cut by `OCTANTS` first.
"""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry

from geosieve.geo.sphere import EARTH_RADIUS_KM, Floats

EDGE_DEG = 0.5
"""Outlines get a vertex at least this often: a chord is then less than 250 m away from its great circle below 60°."""

_POLE = 1e-13  # cos(lat) of what is a pole but for rounding: half a micrometre
_DECIMALS = 10  # of a degree: a hundredth of a millimetre

OCTANTS = np.array(
    [
        [[np.cos(west), np.sin(west), 0.0], [-np.sin(west), np.cos(west), 0.0], [0.0, 0.0, pole]]
        for west in np.radians([0.0, 90.0, 180.0, 270.0])
        for pole in (1.0, -1.0)
    ]
).round()
"""The sphere as eight triangles, shape (8, 3, 3)."""


def unit_vectors(lat: Floats, lon: Floats) -> Floats:
    """Unit vectors (x, y, z), shape (n, 3), of points in degrees."""
    phi, theta = np.radians(lat), np.radians(lon)
    return np.column_stack([np.cos(theta) * np.cos(phi), np.sin(theta) * np.cos(phi), np.sin(phi)])


def lat_lon(vectors: Floats) -> tuple[Floats, Floats]:
    """Degrees (lat, lon) of vectors of any length, shape (…, 3); lon in [-180, 180]."""
    x, y, z = np.moveaxis(vectors, -1, 0)
    return np.degrees(np.arctan2(z, np.hypot(x, y))), np.degrees(np.arctan2(y, x))


def areas_km2(polygons: Floats, radius_km: float = EARTH_RADIUS_KM) -> Floats:
    """Areas of convex polygons of equally many vertices, shape (n, m, 3), on a sphere, km².

    Triangles by Van Oosterom and Strackee (1983). The triple product is taken of differences, which keeps the digits
    of cells of a centimetre.
    """
    a, b, c = polygons[:, :1], polygons[:, 1:-1], polygons[:, 2:]
    triple = (a * np.cross(b - a, c - a)).sum(axis=-1)
    base = 1.0 + (a * b).sum(axis=-1) + (b * c).sum(axis=-1) + (c * a).sum(axis=-1)
    return np.asarray(np.abs(2.0 * np.arctan2(triple, base).sum(axis=1)) * radius_km**2)


def clip(polygon: Floats, normals: Floats) -> Floats | None:
    """The part of a convex polygon (m, 3) where x · normal >= 0 for all normals (n, 3); None if nothing is left."""
    left = np.ones(len(normals), dtype=bool)
    while left.any():
        sides = polygon @ normals[left].T
        if (sides.max(axis=0) <= _POLE).any():
            return None
        worst = int(sides.min(axis=0).argmin())
        if sides[:, worst].min() >= -_POLE:
            break
        polygon = _cut(polygon, sides[:, worst])
        left[np.flatnonzero(left)[worst]] = False
    return polygon


def _cut(polygon: Floats, side: Floats) -> Floats:
    """Sutherland and Hodgman (1974) on great circles: the vertices with side >= 0, and new ones where it changes."""
    side = np.where(np.abs(side) < _POLE, 0.0, side)  # a vertex on the plane stays where it is
    after, side_after = np.roll(polygon, -1, axis=0), np.roll(side, -1)
    crossing = (side >= 0) != (side_after >= 0)
    share = np.where(crossing, side / np.where(crossing, side - side_after, 1.0), 0.0)[:, np.newaxis]
    between = polygon + share * (after - polygon)
    between /= np.linalg.norm(between, axis=1, keepdims=True)
    both = np.stack([polygon, between], axis=1).reshape(-1, 3)
    return np.asarray(both[np.column_stack([side >= 0, crossing]).ravel()])


def planar(polygons: Floats) -> NDArray[np.object_]:
    """Outlines (lon, lat), degrees, of polygons of unit vectors, shape (n, m, 3), each inside one octant.

    Every edge is divided into the same number of pieces, so that neighbours of one size share their vertices.
    """
    after = np.roll(polygons, -1, axis=1)
    pieces = int(_pieces(polygons, after).max(initial=1))
    share = (np.arange(pieces) / pieces)[:, np.newaxis]
    dense = polygons[:, :, np.newaxis] + share * (after - polygons)[:, :, np.newaxis]
    return _shapes(dense.reshape(len(polygons), -1, 3), polygons.mean(axis=1))


def merged(pieces: list[Floats]) -> BaseGeometry:
    """One outline of the polygons (m, 3) that make up a region, each inside one octant.

    An edge gets vertices by its own length and at every degree of longitude (near a pole it crosses many), so that
    regions that share it have the same ones.
    """
    shapes = []
    for polygon in pieces:
        after = np.roll(polygon, -1, axis=0)
        dense = np.concatenate([_along(*edge) for edge in zip(polygon, after, strict=True)])
        shapes.append(_shapes(dense[np.newaxis], polygon.mean(axis=0)[np.newaxis])[0])
    parts = shapely.get_parts(shapely.union_all(shapely.make_valid(shapes)))
    areas = [part for part in parts if isinstance(part, Polygon)]  # a sliver may have become a line
    return areas[0] if len(areas) == 1 else MultiPolygon(areas)


def _along(start: Floats, end: Floats) -> Floats:
    """Points, shape (n, 3), on the edge between two vertices, the first with them and the last not."""
    count = int(_pieces(start, end))
    share = np.arange(count) / count
    (_, west), (_, east) = lat_lon(start), lat_lon(end)
    width = (east - west + 180.0) % 360.0 - 180.0
    if min(np.hypot(*start[:2]), np.hypot(*end[:2])) > _POLE and abs(width) > 1.0:
        low, high = sorted((west, west + width))
        meridian = np.radians(np.arange(np.floor(low) + 1, np.ceil(high)))
        normal = np.stack([-np.sin(meridian), np.cos(meridian)])
        crossing = start[:2] @ normal / ((start - end)[:2] @ normal)
        share = np.union1d(share, crossing[(crossing > 0) & (crossing < 1)])
    return np.asarray(start + share[:, np.newaxis] * (end - start))


def _pieces(start: Floats, end: Floats) -> NDArray[np.int64]:
    chord = np.linalg.norm(end - start, axis=-1)
    angle = np.degrees(2 * np.arcsin(np.minimum(1.0, chord / 2)))
    return np.asarray(np.maximum(1, np.ceil(angle / EDGE_DEG - 1e-9)), dtype=np.int64)


def _shapes(rings: Floats, middle: Floats) -> NDArray[np.object_]:
    """Polygons (lon, lat) of rings (n, m, 3) around `middle`, shape (n, 3), which tells the octant."""
    lat, lon = lat_lon(rings)
    west = 90.0 * np.floor(lat_lon(middle)[1] / 90.0)[:, np.newaxis]
    # An octant's edge may be met from the other side of ±180, or missed by a rounding error.
    lon = west + np.clip((lon - west + 135.0) % 360.0 - 135.0, 0.0, 90.0)
    polar = np.hypot(rings[..., 0], rings[..., 1]) < _POLE * np.linalg.norm(rings, axis=-1)
    plane = np.stack([lon, lat], axis=-1).round(_DECIMALS)
    shapes = np.empty(len(rings), dtype=object)
    simple = ~polar.any(axis=1)
    shapes[simple] = shapely.polygons(plane[simple]) if simple.any() else []
    for n in np.flatnonzero(~simple):  # a few: only those that meet at a pole
        shapes[n] = shapely.polygons(_over_pole(plane[n], polar[n]))
    return shapes


def _over_pole(ring: Floats, polar: NDArray[np.bool_]) -> Floats:
    """Replace the pole in a ring by an edge along the pole, from one neighbour's longitude to the other's."""
    pole = np.copysign(90.0, ring[polar, 1][0])
    start = int(np.flatnonzero(polar & ~np.roll(polar, -1))[0]) + 1  # the vertex after the pole, which may be doubled
    rest = np.roll(ring, -start, axis=0)[~np.roll(polar, -start)]
    return np.vstack([rest, [[rest[-1, 0], pole], [rest[0, 0], pole]]])
