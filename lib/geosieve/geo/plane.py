"""Shapes whose edges are straight in longitude and latitude: exact areas on the sphere, perimeters, points inside."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray

from geosieve.geo.outlines import unit_vectors
from geosieve.geo.ranges import ranges
from geosieve.geo.sphere import EARTH_RADIUS_KM, Floats

Ints = NDArray[np.int64]

_LEAST, _MOST = 4, 256  # lines across a shape, and points along a line inside it


def areas_km2(shapes: NDArray[np.object_]) -> Floats:
    """Areas, km², of valid shapes (lon, lat in degrees), shape (n,), on the sphere of mean radius; 0 for lines.

    The integral of R² sin(lat) dlon along the edges, each in closed form. Sines are taken as differences to the ring's
    first vertex, which keeps the digits of small shapes.
    """
    rings, of, hole = _rings(shapes)
    coordinates, ring = shapely.get_coordinates(rings, return_index=True)
    inner = np.flatnonzero(ring[1:] == ring[:-1])
    first = np.searchsorted(ring, ring[inner])
    lon, lat = np.radians(coordinates).T
    width, height = lon[inner + 1] - lon[inner], lat[inner + 1] - lat[inner]
    middle, start = (lat[inner + 1] + lat[inner]) / 2, lat[first]
    # The mean of sin along an edge is sin(middle) · sinc(height / 2).
    sine = 2 * np.cos((middle + start) / 2) * np.sin((middle - start) / 2) + np.sin(middle) * _sinc_less_one(height / 2)
    area = np.abs(np.bincount(ring[inner], width * sine, rings.size)) * np.where(hole, -1.0, 1.0)
    return np.asarray(np.bincount(of, area, shapes.size) * EARTH_RADIUS_KM**2)


def perimeters_km(shapes: NDArray[np.object_]) -> Floats:
    """Lengths, km, of the outlines of shapes, (n,), holes included: sums of chords between their vertices."""
    rings, of, _ = _rings(shapes)
    coordinates, ring = shapely.get_coordinates(rings, return_index=True)
    vectors = unit_vectors(coordinates[:, 1], coordinates[:, 0])
    inner = np.flatnonzero(ring[1:] == ring[:-1])
    chord = np.linalg.norm(vectors[inner + 1] - vectors[inner], axis=1)
    return np.asarray(np.bincount(of[ring[inner]], chord, shapes.size) * EARTH_RADIUS_KM)


def points_inside(shapes: NDArray[np.object_], spacing_deg: float) -> tuple[Ints, Floats, Floats, Floats]:
    """Points spread evenly over the inside of shapes, (n,): shape of each, lat, lon, and its share of the shape's area.

    They lie along parallels, at most `spacing_deg` apart and at least four lines with four points to a convex shape,
    however small it is. Shares of a shape sum to 1.
    """
    west, south, east, north = shapely.bounds(shapes).T
    lines = np.clip(np.ceil((north - south) / spacing_deg), _LEAST, _MOST).astype(np.int64)
    of = np.repeat(np.arange(shapes.size), lines)
    number = ranges(0, lines)
    lat = south[of] + (number + 0.5) / lines[of] * (north - south)[of]
    across = shapely.linestrings(np.stack([np.stack([west[of], east[of]], -1), np.stack([lat, lat], -1)], -1))
    parts, line = shapely.get_parts(shapely.intersection(shapes[of], across), return_index=True)
    long = shapely.length(parts) > 0
    parts, line = parts[long], line[long]
    begin, _, end, _ = shapely.bounds(parts).T
    step = np.minimum(spacing_deg, (east - west)[of[line]] / _LEAST)
    points = np.clip(np.ceil((end - begin) / step), 1, _MOST).astype(np.int64)
    part = np.repeat(np.arange(parts.size), points)
    number = ranges(0, points)
    lon = begin[part] + (number + 0.5) / points[part] * (end - begin)[part]
    shape, lat = of[line[part]], lat[line[part]]
    weight = (end - begin)[part] / points[part] * np.cos(np.radians(lat)) / lines[shape]
    missed = np.setdiff1d(np.arange(shapes.size), shape)  # too flat for its parallels
    middle = shapely.point_on_surface(shapes[missed])
    shape = np.concatenate([shape, missed])
    lat, lon = np.concatenate([lat, shapely.get_y(middle)]), np.concatenate([lon, shapely.get_x(middle)])
    weight = np.concatenate([weight, np.ones(missed.size)])
    return shape, lat, lon, weight / np.bincount(shape, weight, shapes.size)[shape]


def _rings(shapes: NDArray[np.object_]) -> tuple[NDArray[np.object_], Ints, NDArray[np.bool_]]:
    """Rings of the polygons of shapes: each ring, the number of its shape, and whether it is a hole."""
    parts, of_part = shapely.get_parts(shapes, return_index=True)
    parts, of_inner = shapely.get_parts(parts, return_index=True)  # collections hold multipolygons
    of = of_part[of_inner]
    areas = shapely.get_type_id(parts) == 3
    parts, of = parts[areas], of[areas]
    rings, polygon = shapely.get_rings(parts, return_index=True)
    hole = np.r_[False, polygon[1:] == polygon[:-1]][: polygon.size]
    return rings, of[polygon], hole


def _sinc_less_one(x: Floats) -> Floats:
    small = np.abs(x) < 0.02
    series = x**2 * (-1 / 6 + x**2 * (1 / 120 - x**2 / 5040))
    return np.asarray(np.where(small, series, np.sin(x) / np.where(small, 1.0, x) - 1.0))
