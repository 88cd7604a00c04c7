"""Footprints: the outline of a raster in WGS-84, right also for curved edges, the antimeridian and the poles."""

from __future__ import annotations

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from shapely.affinity import translate
from shapely.geometry import MultiPolygon, Polygon, box
from shapely.geometry.base import BaseGeometry

from geosieve.geo.sphere import normalize_lon

WORLD = box(-180.0, -90.0, 180.0, 90.0)
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
    if CRS.from_wkt(crs_wkt).is_geographic:
        unwrapped = np.asarray(lon)  # continuous as it is, also beyond 180
    else:
        unwrapped = lon[0] + np.r_[0.0, np.cumsum(normalize_lon(np.diff(lon)))]
    ring = np.column_stack([unwrapped, np.clip(lat, -90.0, 90.0)])
    turns = round((unwrapped[-1] - unwrapped[0]) / 360.0)
    if turns:
        pole = _pole(crs_wkt, transform, width, height)
        if pole is None:
            return WORLD
        ring = np.vstack([ring, [[unwrapped[-1], pole], [unwrapped[0], pole]]])
    return _wrapped(shapely.make_valid(Polygon(ring)))


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


def _wrapped(shape: BaseGeometry) -> BaseGeometry:
    """`shape`, which may reach beyond ±180, brought into [-180, 180]."""
    turns = range(int(np.floor((shape.bounds[0] + 180) / 360)), int(np.floor((shape.bounds[2] + 180) / 360)) + 1)
    parts = [translate(shape, -360.0 * turn).intersection(WORLD) for turn in turns]
    whole = shapely.union_all(parts)
    areas = [part for part in shapely.get_parts(whole) if isinstance(part, Polygon)]
    return areas[0] if len(areas) == 1 else MultiPolygon(areas)
