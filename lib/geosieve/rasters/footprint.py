"""Footprints: the outline of a raster in WGS-84, right also for curved edges, the antimeridian and the poles."""

from __future__ import annotations

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry

from geosieve.geo.antimeridian import WORLD, over_pole, turns, unwrap, wrapped

_STEPS = 64  # points an edge: a 1000 km edge then strays less than 10 m from the true curve


def footprint(crs_wkt: str, transform: Affine, width: int, height: int) -> BaseGeometry:
    """Outline of a raster's pixels as a polygon of (lon, lat) inside [-180, 180] × [-90, 90].

    Edges are densified before they are transformed; an outline across ±180 is cut in two; one around a pole reaches
    it. Where the projection cannot be inverted on the outline the whole Earth is returned: a footprint may be too
    large, because the pixel grid itself decides in the end, but never too small.
    """
    to_wgs84 = Transformer.from_crs(CRS.from_wkt(crs_wkt), CRS.from_epsg(4326), always_xy=True)
    column, row = _outline(width, height)
    x = transform.a * column + transform.b * row + transform.c
    y = transform.d * column + transform.e * row + transform.f
    lon, lat = to_wgs84.transform(x, y)
    if not (np.isfinite(lon).all() and np.isfinite(lat).all()):
        return WORLD
    # Longitudes of a geographic CRS are continuous as they are, also beyond 180.
    unwrapped = np.asarray(lon) if CRS.from_wkt(crs_wkt).is_geographic else unwrap(lon)
    ring = np.column_stack([unwrapped, np.clip(lat, -90.0, 90.0)])
    if turns(unwrapped):
        pole = _pole(crs_wkt, transform, width, height)
        if pole is None:
            return WORLD
        ring = over_pole(ring, pole)
    return wrapped(shapely.make_valid(Polygon(ring)))


def _outline(width: int, height: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Pixel coordinates (column, row) around the raster, closed, `_STEPS` points an edge."""
    along = np.linspace(0.0, 1.0, _STEPS + 1)
    zero, one = np.zeros_like(along), np.ones_like(along)
    column = np.concatenate([along, one, along[::-1], zero]) * width
    row = np.concatenate([zero, along, one, along[::-1]]) * height
    return column, row


def _pole(crs_wkt: str, transform: Affine, width: int, height: int) -> float | None:
    """Latitude of the one pole inside the raster, or None where it is not clear which."""
    to_crs = Transformer.from_crs(CRS.from_epsg(4326), CRS.from_wkt(crs_wkt), always_xy=True)
    inside = []
    for pole in (90.0, -90.0):
        x, y = to_crs.transform(0.0, pole)
        if np.isfinite([x, y]).all():
            column, row = ~transform @ (x, y)
            if 0 <= column <= width and 0 <= row <= height:
                inside.append(pole)
    return inside[0] if len(inside) == 1 else None
