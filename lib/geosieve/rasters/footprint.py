"""Footprints: outlines of rasters in WGS-84, correct also for curved edges, at the antimeridian and at the poles.

A footprint may be too large, because the pixel grid itself decides in the end, but it must never be too small. There
are two methods. The first transforms the outline of the pixels to WGS-84; it is tight. The second transforms grid cells
of the Earth into the raster's CRS; it also works where longitudes jump (around poles, at seams) and where corners of
the raster lie outside the Earth. A result is accepted only if it contains a sample of the raster's pixels. If neither
result does, the footprint is the whole Earth.
"""

from __future__ import annotations

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from shapely.geometry import MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry

from geosieve.geo.antimeridian import WORLD, turns, unwrap, wrapped
from geosieve.geo.arrays import F8
from geosieve.rasters.georeference import PixelGrid, UnusableCrs

_STEPS = 128  # points per edge
_CHORD_DEG = 0.02  # an outline is not trusted if its chords deviate further from the true curve
_SIMPLER_DEG = 1e-3
_ROUNDING_DEG = 1e-6  # covers the error of a datum shift and its inverse
_CELLS_DEG = (10.0, 2.0, 0.5)
_ENOUGH_CELLS, _MOST_CELLS = 400, 8_000
_NEARLY_DEG = 1e-9
_SAMPLE = 17  # rows and columns of pixels in the sample


class Misplaced(Exception):
    """A raster has no usable location on the Earth. Arguments: error class, message."""


def place(crs_wkt: str, transform: Affine, width: int, height: int) -> tuple[bool, BaseGeometry]:
    """Return whether the raster covers the whole Earth, and its footprint as of `footprint`.

    Raises `Misplaced(error_class, message)` with one of these error classes: `unusable_crs` (an engineering, vertical
    or geocentric CRS, or one that PROJ does not know), `swapped_axes` or `bad_bounds` (coordinates that are impossible
    in a geographic CRS), `off_earth` (no pixel lies on the Earth).
    """
    grid = PixelGrid(crs_wkt, transform, width, height)
    try:
        _check_axes(grid)
        if grid.covers_earth():
            return True, WORLD
        return False, footprint(crs_wkt, transform, width, height)
    except UnusableCrs as error:
        raise Misplaced("unusable_crs", str(error)) from error


def footprint(crs_wkt: str, transform: Affine, width: int, height: int) -> BaseGeometry:
    """Outline of a raster's pixels as a (multi)polygon of (lon, lat) degrees inside [-180, 180] × [-90, 90].

    It is cut at ±180 and extends to each pole that has a pixel. Edges are chords of the true curves, moved outwards by
    the largest deviation. Raises UnusableCrs, and `Misplaced` if no pixel lies on the Earth.
    """
    grid = PixelGrid(crs_wkt, transform, width, height)
    lat, lon = _sample(grid)
    # If no sampled pixel lies on the Earth, the transformed outline is meaningless and only the cells can be trusted.
    for attempt in (_outline, _cells) if lat.size else (_cells,):
        shape = attempt(grid)
        if shape is not None and _holds(shape, lat, lon):
            return shape
    if lat.size == 0:
        raise Misplaced("off_earth", f"none of its pixels lies on the Earth; x and y from {grid.bounds()}")
    return WORLD


def _check_axes(grid: PixelGrid) -> None:
    system = grid.system
    if not system.geographic or system.turn is None:
        return
    west, south, east, north = grid.bounds()
    # The centres of the outer pixels may lie on the poles, as in ERA5, and pixels need not divide 180 degrees.
    pole = system.turn / 4.0
    beyond = pole + abs(grid.transform.d) + abs(grid.transform.e) + 1e-5 * pole
    if south < -beyond or north > beyond:
        raise Misplaced("swapped_axes", f"latitudes from {south} to {north}: are x and y swapped?")
    if max(abs(west), abs(east)) > 1.5 * system.turn + 1e-5 * pole:
        raise Misplaced("bad_bounds", f"longitudes from {west} to {east}")


def _sample(grid: PixelGrid) -> tuple[F8, F8]:
    """lat, lon of points inside the raster: centres of a grid of pixels (corner pixels included), and the poles."""
    row, column = (np.unique(np.linspace(0, n - 1, _SAMPLE).round()) + 0.5 for n in (grid.height, grid.width))
    rows, columns = (v.ravel() for v in np.meshgrid(row, column))
    lat, lon = grid.system.inverse(*grid.coordinates(rows, columns))
    polar = np.repeat([-90.0, 90.0], 24)
    lat, lon = np.concatenate([lat, polar]), np.concatenate([lon, np.tile(np.arange(-180.0, 180.0, 15.0), 2)])
    real = np.isfinite(lat) & np.isfinite(lon) & (np.abs(lat) <= 90.0)
    lat, lon = lat[real], lon[real]
    inside = grid.pixels(lat, lon)[2]  # meaningless x, y can have a finite inverse, too: check by transforming back
    return lat[inside], lon[inside]


def _holds(shape: BaseGeometry, lat: F8, lon: F8) -> bool:
    """Whether a footprint contains all points, within rounding."""
    lon = (lon + 180.0) % 360.0 - 180.0
    held = shapely.dwithin(shape, shapely.points(lon, lat), _ROUNDING_DEG)
    other = np.flatnonzero(~held & (180.0 - np.abs(lon) < _ROUNDING_DEG))  # the same meridian is 180 and -180
    held[other] = shapely.dwithin(shape, shapely.points(-lon[other], lat[other]), _ROUNDING_DEG)
    return bool(held.all())


def _outline(grid: PixelGrid) -> BaseGeometry | None:
    """The transformed outline of the pixels, or None if it is not a simple closed line in longitude and latitude."""
    along = np.linspace(0.0, 1.0, _STEPS + 1)
    zero, one = np.zeros(_STEPS), np.ones(_STEPS)
    column = np.concatenate([along[:-1], one, along[:0:-1], zero, [0.0]])
    row = np.concatenate([zero, along[:-1], one, along[:0:-1], [0.0]])
    x, y = grid.coordinates(row * float(grid.height), column * float(grid.width))
    system = grid.system
    if system.geographic and system.pole_y is not None:
        y = np.clip(y, *system.pole_y)
    lat, lon = system.inverse(x, y)
    if not (np.isfinite(lat).all() and np.isfinite(lon).all()):
        return None
    lon = unwrap(lon)
    ring = np.column_stack([lon, lat])
    strayed = _strayed(ring)
    if strayed > _CHORD_DEG or turns(lon):
        return None
    ring[-1] = ring[0]  # they differ by rounding only
    shape = Polygon(ring)
    if not shape.is_valid:
        return None
    if strayed < 1e-9:
        shape = shape.simplify(1e-9)
    else:
        # Few vertices, because the driver may keep the outlines of 100,000 files in memory.
        simpler = min(_SIMPLER_DEG, 0.01 * float(np.ptp(ring, axis=0).min()))
        shape = shape.simplify(simpler).buffer(simpler + strayed, join_style="mitre")
    west, south, east, north = shape.bounds
    inside = west >= -180.0 and east <= 180.0 and south >= -90.0 and north <= 90.0
    return shape if inside else wrapped(shape)  # most tiles are inside, and cutting doubles the time


def _strayed(ring: F8) -> float:
    """Largest distance of every other vertex of a ring (n, 2) from the line through its two neighbours."""
    before, vertex, after = ring[:-2:2], ring[1::2], ring[2::2]
    chord, leg = after - before, vertex - before
    length = np.hypot(*chord.T)
    across = np.abs(chord[:, 0] * leg[:, 1] - chord[:, 1] * leg[:, 0])
    return float(np.where(length > 0, across / np.where(length > 0, length, 1.0), np.hypot(*leg.T)).max())


def _cells(grid: PixelGrid) -> BaseGeometry | None:
    """Union of the grid cells of the Earth that may contain pixels, or None if there is none."""
    size = _CELLS_DEG[0]
    west, south = (v.ravel() for v in np.meshgrid(np.arange(-180.0, 180.0, size), np.arange(-90.0, 90.0, size)))
    near = _may_hold(grid, west, south, size)
    west, south = west[near], south[near]
    for finer in _CELLS_DEG[1:]:
        pieces = round(size / finer)
        if west.size > _ENOUGH_CELLS or west.size * pieces**2 > _MOST_CELLS:
            break
        step = np.arange(pieces) * finer
        east, north = (v.ravel() for v in np.meshgrid(step, step))
        west, south, size = np.add.outer(west, east).ravel(), np.add.outer(south, north).ravel(), finer
        near = _may_hold(grid, west, south, size)
        west, south = west[near], south[near]
    if west.size == 0:
        return None
    shape = shapely.union_all(shapely.box(west, south, west + size, south + size))
    parts = list(shapely.get_parts(shape))
    return parts[0] if len(parts) == 1 else MultiPolygon(parts)


def _may_hold(grid: PixelGrid, west: F8, south: F8, size: float) -> NDArray[np.bool_]:
    """Which square cells may contain a pixel: those whose widened extent in the CRS intersects the raster's bounds.

    west, south: corners of the cells in degrees, shape (n,); size: their width and height in degrees.
    """
    steps = np.linspace(0.0, size, 3)
    east, north = (v.ravel() for v in np.meshgrid(steps, steps))
    # Avoid longitude 180, because it becomes -180 at the other end of the map, and the poles, which may be at infinity.
    lon = np.minimum(np.add.outer(west, east), 180.0 - _NEARLY_DEG)
    lat = np.clip(np.add.outer(south, north), _NEARLY_DEG - 90.0, 90.0 - _NEARLY_DEG)
    x, y = (v.reshape(lon.shape) for v in grid.system.forward(lat.ravel(), lon.ravel()))
    finite = np.isfinite(x) & np.isfinite(y)
    x, y = np.where(finite, x, 0.0), np.where(finite, y, 0.0)
    left, right, low, high = x.min(axis=1), x.max(axis=1), y.min(axis=1), y.max(axis=1)
    # Between the nodes, curves bulge by less than half of the cell's size. Nodes at a pole are left out of that size.
    inner = np.abs(lat) < 90.0 - 2.0 * _NEARLY_DEG
    width, height = (np.where(inner, v, -np.inf).max(axis=1) - np.where(inner, v, np.inf).min(axis=1) for v in (x, y))
    margin = np.maximum(width, height) / 2.0
    turn = grid.system.turn
    if turn is not None:
        around = right - left > turn / 2.0  # across the seam, or around a pole of the CRS
        margin = np.where(around, height / 2.0, margin)
        if grid.system.geographic:
            margin += np.where(around, 2.0 * size * turn / 360.0, 0.0)
        left, right = np.where(around, -np.inf, left), np.where(around, np.inf, right)
    least_x, least_y, most_x, most_y = grid.bounds()
    beside = np.zeros(left.shape, dtype=bool)
    for n in grid.turns():
        shift = 0.0 if turn is None else n * turn
        beside |= (left + shift - margin <= most_x) & (right + shift + margin >= least_x)
    near = beside & (low - margin <= most_y) & (high + margin >= least_y)
    # If only some nodes have coordinates, the extent is unknown: keep the cell.
    return np.where(finite.all(axis=1), near, finite.any(axis=1))
