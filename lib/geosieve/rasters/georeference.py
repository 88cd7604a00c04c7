"""Where the pixels of a raster lie on the Earth: from positions to pixels and back, in any CRS that PROJ knows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError, ProjError

from geosieve.geo.arrays import F8, I8
from geosieve.geo.sphere import haversine_km, normalize_lon

WGS84 = CRS.from_epsg(4326)

EDGE_PX = 1e-3
"""Tolerance in pixels, because headers are rounded: an edge this close to a pole, or to a full circle, reaches it."""

_FOLDED_KM = 1.0  # round-trip error; transverse Mercator series lose less than this far from their meridian


class UnusableCrs(ValueError):
    """A CRS in which no position on the Earth can be expressed."""


@dataclass(frozen=True)
class ReferenceSystem:
    """A CRS with its period and poles, in the CRS's own units, which need not be degrees.

    `turn` is the period of x: the full circle of a geographic CRS, the circumference of a cylindrical projection, or
    None if x has no period. `pole_y` is y of the south and north pole if they bound the map, else None.
    """

    geographic: bool
    turn: float | None
    pole_y: tuple[float, float] | None
    _to_crs: Transformer | None  # None: the same coordinates as WGS-84

    def forward(self, lat: F8, lon: F8) -> tuple[F8, F8]:
        """x, y of WGS-84 degrees; inf where the CRS has no such point. Longitude 180 is -180."""
        lon = normalize_lon(lon)
        return (lon, lat) if self._to_crs is None else self._to_crs.transform(lon, lat)

    def inverse(self, x: F8, y: F8) -> tuple[F8, F8]:
        """lat, lon, WGS-84 degrees, of x, y; inf where no point of the Earth has these. Longitudes may exceed ±180."""
        if self._to_crs is None:
            return y, x
        try:
            lon, lat = self._to_crs.transform(x, y, direction="INVERSE")
        except ProjError:  # a projection without an inverse
            return np.full_like(x, np.inf), np.full_like(y, np.inf)
        return lat, lon


@lru_cache(maxsize=256)
def reference_system(crs_wkt: str) -> ReferenceSystem:
    """The CRS of a WKT. UnusableCrs if it is neither geographic nor projected, or PROJ knows no way to it."""
    try:
        crs = CRS.from_wkt(crs_wkt)
        if crs.is_compound:
            crs = crs.sub_crs_list[0]
        if not (crs.is_geographic or crs.is_projected):
            raise UnusableCrs(f"its CRS {crs.name!r} is a {crs.type_name}, which has no place on the Earth")
        same = crs.equals(WGS84, ignore_axis_order=True)
        to_crs = None if same else Transformer.from_crs(WGS84, crs, always_xy=True)
        turn, pole_y = _circle(crs) if crs.is_geographic else _cylinder(crs)
    except (CRSError, ProjError) as error:
        raise UnusableCrs(f"PROJ cannot use its CRS: {error}") from error
    return ReferenceSystem(bool(crs.is_geographic), turn, pole_y, to_crs)


def _circle(crs: CRS) -> tuple[float, tuple[float, float]]:
    """Full circle and latitudes of the poles in the units of a geographic CRS: degrees, grads, …"""
    turn = round(2.0 * math.pi / crs.axis_info[0].unit_conversion_factor, 10)
    return turn, (-turn / 4.0, turn / 4.0)


def _cylinder(crs: CRS) -> tuple[float | None, tuple[float, float] | None]:
    """Period of x and y of the poles of a projection, found by trying: no list of projections is complete."""
    crs = crs.source_crs or crs if crs.is_bound else crs  # a datum shift moves no meridian far enough to matter here
    base = crs.geodetic_crs
    if base is None:
        return None, None
    turn, _ = _circle(base)
    steps = 24
    # Not at the seam, wherever that is: it would have to be on a round number of degrees.
    lon, lat = np.meshgrid(turn * ((np.arange(steps) + 0.4142) / steps - 0.5), turn * np.linspace(-0.25, 0.25, 13))
    x, y = Transformer.from_crs(base, crs, always_xy=True).transform(lon, lat)
    if not (np.isfinite(x[1:-1]).all() and np.isfinite(y[1:-1]).all()):
        return None, None
    width, height = np.ptp(x[1:-1]), np.ptp(y[1:-1])
    pole_y = float(y[0, 0]), float(y[-1, 0])
    bounded = np.isfinite(y).all() and np.ptp(y[[0, -1]], axis=1).max() <= 1e-9 * height
    bounded = bounded and pole_y[0] < y[1:-1].min() and y[1:-1].max() < pole_y[1]
    steps_x = np.diff(x[1:-1], axis=1)
    period = float(np.median(steps_x)) * steps
    uneven = steps_x - period / steps  # a whole period at the seam
    even = np.abs(uneven - period * np.round(uneven / period)).max() <= 1e-9 * width if period else False
    upright = np.ptp(x[1:-1], axis=0).max() <= 1e-9 * width and np.ptp(y[1:-1], axis=1).max() <= 1e-9 * height
    return (abs(period) if even and upright else None), (pole_y if bounded else None)


@dataclass(frozen=True)
class PixelGrid:
    """The pixels of a raster: x = a·column + b·row + c, y = d·column + e·row + f in its CRS."""

    crs_wkt: str
    transform: Affine
    width: int
    height: int

    @property
    def system(self) -> ReferenceSystem:
        return reference_system(self.crs_wkt)

    def coordinates(self, row: F8, column: F8) -> tuple[F8, F8]:
        """x, y of fractional rows and columns; a pixel's centre is at half of one."""
        t = self.transform
        return t.a * column + t.b * row + t.c, t.d * column + t.e * row + t.f

    def bounds(self) -> tuple[float, float, float, float]:
        """Least x, least y, greatest x and greatest y of the corners."""
        rows, columns = np.array([[0.0, 0.0, 1.0, 1.0], [0.0, 1.0, 0.0, 1.0]]) * [[self.height], [self.width]]
        x, y = self.coordinates(rows, columns)
        return float(x.min()), float(y.min()), float(x.max()), float(y.max())

    def pixels(self, lat: F8, lon: F8) -> tuple[I8, I8, NDArray[np.bool_]]:
        """Row and column of the pixel that holds each point, and whether there is such a pixel.

        lat, lon: WGS-84 degrees, shape (n,). A pixel includes its upper and left edge. If x has a period, x shifted by
        whole periods is tried as well; the smallest shift that hits a pixel counts. An edge at a pole is inside,
        because no other pixel covers that point. Row and column are 0 if there is no pixel.
        """
        x, y = self.system.forward(lat, lon)
        known = np.isfinite(x) & np.isfinite(y)
        x, y = np.where(known, x, 0.0), np.where(known, y, 0.0)
        inverse = ~self.transform
        column = inverse.a * x + inverse.b * y + inverse.c
        row = self._at_poles(inverse.d * x + inverse.e * y + inverse.f)
        inside = known & self._holds(row, column)
        turn = self.system.turn
        if turn is not None and not inside.all():
            slack = EDGE_PX if self._goes_around(turn) else 0.0
            for n in self.turns():
                beside = np.flatnonzero(known & ~inside)
                at_row, at_column = row[beside] + n * inverse.d * turn, column[beside] + n * inverse.a * turn
                if slack:  # between the last and the first column there is nothing but a rounding error
                    at_column = _snapped(at_column, self.width, slack, slack)
                found = self._holds(at_row, at_column)
                row[beside[found]], column[beside[found]] = at_row[found], at_column[found]
                inside[beside[found]] = True
        if not self.system.geographic and turn is None:
            self._unfold(inside, x, y, lat, lon)
        return (
            np.where(inside, np.floor(row), 0).astype(np.int64),
            np.where(inside, np.floor(column), 0).astype(np.int64),
            inside,
        )

    def _unfold(self, inside: NDArray[np.bool_], x: F8, y: F8, lat: F8, lon: F8) -> None:
        """Remove from `inside` the points whose x and y belong to another point of the Earth.

        PROJ's formulas for the Swiss, Czech, New Zealand and other national grids map one half of the Earth onto the
        other.
        """
        found = np.flatnonzero(inside)
        back_lat, back_lon = self.system.inverse(x[found], y[found])
        back = np.isfinite(back_lat) & np.isfinite(back_lon) & (np.abs(back_lat) <= 90.0)
        if not back.any():  # a projection without an inverse
            return
        found, there = found[back], haversine_km(lat[found[back]], lon[found[back]], back_lat[back], back_lon[back])
        inside[found[there > _FOLDED_KM]] = False

    def turns(self) -> list[int]:
        """Whole turns by which x of a point may have to be moved to fall into this raster, the least first."""
        turn = self.system.turn
        if turn is None:
            return [0]
        left, _, right, _ = self.bounds()
        # PROJ's x lies within a turn of 0, whatever its meridian and wrapping are.
        every = range(math.ceil(left / turn - 1.0), math.floor(right / turn + 1.0) + 1)
        return sorted(every, key=lambda n: (abs(n), -n))

    def covers_earth(self) -> bool:
        """Whether every point of the Earth has a pixel, poles and ±180 included."""
        turn, pole_y = self.system.turn, self.system.pole_y
        if not self.system.geographic or turn is None or pole_y is None or not self._upright():
            return False
        _, bottom, _, top = self.bounds()
        slack = EDGE_PX * abs(self.transform.e)
        if not (self._goes_around(turn) and bottom <= pole_y[0] + slack and top >= pole_y[1] - slack):
            return False
        lat, lon = (v.ravel() for v in np.meshgrid(np.linspace(-90.0, 90.0, 25), np.linspace(-180.0, 180.0, 49)))
        return bool(self.pixels(lat, lon)[2].all())

    def _upright(self) -> bool:
        return bool(self.transform.b == self.transform.d == 0.0)

    def _holds(self, row: F8, column: F8) -> NDArray[np.bool_]:
        return np.asarray((row >= 0) & (row < self.height) & (column >= 0) & (column < self.width))

    def _goes_around(self, turn: float) -> bool:
        return self._upright() and self.width * abs(self.transform.a) >= turn - EDGE_PX * abs(self.transform.a)

    def _at_poles(self, row: F8) -> F8:
        """Fractional rows, those on an edge that is a pole moved into the raster."""
        pole_y = self.system.pole_y
        if pole_y is None or not self._upright():
            return row
        e, f = self.transform.e, self.transform.f
        first, last = (
            EDGE_PX if min(abs(edge - pole) for pole in pole_y) <= EDGE_PX * abs(e) else 0.0
            for edge in (f, f + e * self.height)
        )
        return _snapped(row, self.height, first, last)


def _snapped(index: F8, size: int, below: float, above: float) -> F8:
    """Fractional indices, those outside of [0, size) by up to `below` or `above` moved into the first or last pixel."""
    if below:
        index = np.where((index < 0) & (index >= -below), 0.0, index)
    if above:
        index = np.where((index >= size) & (index <= size + above), size - 1.0, index)
    return index
