"""Outlines of land for maps, simple enough to be part of a page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyogrio
import shapely

from geosieve.geo.antimeridian import WORLD
from geosieve.runtime.errors import InputError

_TOLERANCE_DEG, _LEAST_DEG2 = 0.15, 0.3
_MOST_VERTICES = 40_000


def builtin_outline() -> str | None:
    """The countries of Natural Earth (1:110 million, public domain) among pyogrio's own files, if they are there."""
    path = Path(pyogrio.__file__).parent / "tests/fixtures/naturalearth_lowres/naturalearth_lowres.shp"
    return str(path) if path.exists() else None


def land_outline(uri: str) -> list[list[float]]:
    """Lines of a vector file as flat lists lon, lat, lon, lat, …, degrees, simplified; borders between areas vanish.

    InputError if the file cannot be read, is not in longitude and latitude, or has too many vertices.
    """
    try:
        facts, _, wkb, _ = pyogrio.raw.read(uri, columns=[], force_2d=True)
    except Exception as error:  # GDAL raises many kinds
        raise InputError(f"no outline can be read: {error}", where=uri) from error
    shapes = shapely.from_wkb(wkb)
    west, south, east, north = shapely.total_bounds(shapes)
    if not (west >= -180.001 and east <= 180.001 and south >= -90.001 and north <= 90.001):
        raise InputError(f"an outline in longitude and latitude was expected; its CRS is {facts['crs']}", where=uri)
    areas = shapes[shapely.get_dimensions(shapes) == 2]
    lines = list(shapes[shapely.get_dimensions(shapes) == 1])
    if areas.size:
        parts = shapely.get_parts(shapely.union_all(shapely.make_valid(areas)))
        parts = parts[(shapely.area(parts) >= _LEAST_DEG2)]
        lines += list(shapely.boundary(parts))
    lines = shapely.get_parts(shapely.intersection(np.array(lines, dtype=object), WORLD))
    simple = shapely.simplify(lines, _TOLERANCE_DEG)
    found = [shapely.get_coordinates(line).round(2).ravel().tolist() for line in simple if not shapely.is_empty(line)]
    vertices = sum(len(line) for line in found) // 2
    if vertices > _MOST_VERTICES:
        raise InputError(f"{vertices:,} vertices after simplification; at most {_MOST_VERTICES:,}", where=uri)
    return found
