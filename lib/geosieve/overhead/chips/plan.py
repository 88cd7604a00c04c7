"""Which rasters may give the chip of a position, and where the pixels of that chip lie."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.windows import Window

from geosieve.geo.arrays import F8, I8
from geosieve.overhead.chips.config import View
from geosieve.overhead.chips.sources import ChipRaster, utm_wkt
from geosieve.overhead.strips.plan import utm_epsg
from geosieve.rasters.candidates import CandidateIndex, cell_keys
from geosieve.rasters.georeference import PixelGrid
from geosieve.rasters.sampling import CACHE_BYTES

UTM_SOUTH, UTM_NORTH = -80.0, 84.0
_FARTHEST_DEG = 3.5
"""A chip keeps the zone of its strip up to this distance from the zone's middle; there its scale is 1.0015."""
_BAND_PX = 4096
_MOST_CACHE = 512 << 20


@dataclass(frozen=True)
class Found:
    """For each point the number of its raster, -1 if there is none, and the row and column of the pixel there."""

    raster: I8
    row: I8
    column: I8


class RasterFinder:
    """Finds the preferred raster that has a pixel at a point.

    Rasters are asked one after the other, each only for the points near it that have none yet. Points are projected
    once for all rasters of a CRS.
    """

    def __init__(self, rasters: Sequence[ChipRaster], index: CandidateIndex) -> None:
        """`rasters` are in the order of preference; `index` has the numbers of rasters near a cell."""
        self.rasters, self._keys = rasters, index.keys
        cells = np.repeat(np.arange(index.keys.size), np.diff(index.offsets))
        order = np.argsort(index.items, kind="stable")
        self._cells = cells[order]
        self._starts = np.searchsorted(index.items[order], np.arange(len(rasters) + 1))
        self._outlines: dict[int, Any] = {}
        self.band_rows = np.array([band_rows(raster) for raster in rasters], np.int64)

    def levels(self, step: float) -> I8:
        """`overview_level` of each raster."""
        return np.array([overview_level(raster, step) for raster in self.rasters], np.int64)

    def find(self, lat: F8, lon: F8, after: I8) -> Found:
        """The first raster behind number `after` that has a pixel at each point. lat, lon: WGS-84 degrees, (n,)."""
        found = Found(*(np.full(lat.size, value, np.int64) for value in (-1, 0, 0)))
        if self._keys.size == 0:
            return found
        keys = cell_keys(lat, lon)
        cell = np.minimum(np.searchsorted(self._keys, keys), self._keys.size - 1)
        cell = np.where(self._keys[cell] == keys, cell, self._keys.size)
        in_order = np.argsort(cell, kind="stable")
        starts = np.searchsorted(cell[in_order], np.arange(self._keys.size + 1))
        has_points = starts[1:] > starts[:-1]
        projected: dict[str, tuple[F8, F8]] = {}
        for number in np.unique(
            np.repeat(np.arange(len(self.rasters)), np.diff(self._starts))[has_points[self._cells]]
        ):
            cells = self._cells[self._starts[number] : self._starts[number + 1]]
            near = np.concatenate([in_order[starts[c] : starts[c + 1]] for c in cells[has_points[cells]]])
            near = near[(found.raster[near] < 0) & (after[near] < number)]
            if near.size:
                row, column, inside = self._pixels(number, near, lat, lon, projected)
                near = near[inside]
                found.raster[near], found.row[near], found.column[near] = number, row[inside], column[inside]
        return found

    def _pixels(
        self, number: int, points: I8, lat: F8, lon: F8, projected: dict[str, tuple[F8, F8]]
    ) -> tuple[I8, I8, NDArray[np.bool_]]:
        """Row and column of points in a raster, and whether they are in it and in its footprint."""
        grid = self.rasters[number].grid
        if grid.system.turn is not None:
            row, column, inside = grid.pixels(lat[points], lon[points])
        else:
            x, y = projected.setdefault(grid.crs_wkt, (np.full(lat.size, np.nan), np.full(lat.size, np.nan)))
            new = points[np.isnan(x[points])]
            if new.size:
                x[new], y[new] = grid.system.forward(lat[new], lon[new])
            inverse = ~grid.transform
            at = np.floor(inverse.d * x[points] + inverse.e * y[points] + inverse.f)
            across = np.floor(inverse.a * x[points] + inverse.b * y[points] + inverse.c)
            inside = (at >= 0) & (at < grid.height) & (across >= 0) & (across < grid.width)
            row, column = (np.where(inside, v, 0).astype(np.int64) for v in (at, across))
        inside[inside] = self._covers(number, lat[points[inside]], lon[points[inside]])
        return row, column, inside

    def _covers(self, number: int, lat: F8, lon: F8) -> NDArray[np.bool_]:
        """Whether points lie in a raster's footprint: the corners of a turned strip's grid do not."""
        if number not in self._outlines:
            self._outlines[number] = shapely.from_wkb(self.rasters[number].footprint)
            shapely.prepare(self._outlines[number])
        outline = self._outlines[number]
        seam = np.abs(lon) == 180.0
        return np.asarray(shapely.intersects_xy(outline, lon, lat) | (seam & shapely.intersects_xy(outline, -lon, lat)))


def band_rows(raster: ChipRaster) -> int:
    """The rows of a raster, whole blocks, whose chips are cut from left to right before the next rows come."""
    wanted = _BAND_PX if raster.block[1] < raster.grid.width else _BAND_PX // 16  # blocks as wide as the raster
    return max(1, wanted // raster.block[0]) * raster.block[0]


def cache_bytes(rasters: Sequence[ChipRaster], views: Sequence[View]) -> int:
    """Size of GDAL's cache with which neighbours in a band share decoded blocks, whatever the number of chips.

    It holds the rows of a band and of a chip, over the columns of a chip and the blocks at its sides.
    """
    most = CACHE_BYTES
    for raster in rasters:
        ground = raster.grid.transform.a if raster.strip_id is not None else raster.ground_m
        for view in views:
            side = view.size_px * view.resolution_m / (ground * 2 ** overview_level(raster, view.resolution_m))
            rows = min(band_rows(raster) + side + 2 * raster.block[0], raster.grid.height)
            columns = min(side + 2 * raster.block[1], raster.grid.width)
            sample = 1 if raster.ranges is None else 4
            most = max(most, min(int(rows * columns * (3 * sample + 1)), _MOST_CACHE))
    return most


def overview_level(raster: ChipRaster, step: float) -> int:
    """How often the pixels of a raster may be halved for pixels of `step` metres: 0 for all but prepared strips."""
    if raster.strip_id is None:
        return 0
    return max(0, math.floor(math.log2(step / raster.grid.transform.a * (1.0 + 1e-9))))


@dataclass(frozen=True)
class ChipGrid:
    """The pixels of a chip. `window`: where they are pixels of the raster as they are, possibly beyond its edges."""

    grid: PixelGrid
    epsg: int
    window: Window | None


def chip_grid(raster: ChipRaster, view: View, lat: float, lon: float) -> ChipGrid:
    """Where the chip of a position lies. lat, lon: WGS-84 degrees, in the latitudes that UTM serves.

    The CRS is that of a strip, if the position is not far outside of its zone, else that of the position's zone. If the
    raster has this CRS and the wanted resolution, the chip is a window of it, and its centre is within half a pixel of
    the position. If not, its centre is the position.
    """
    epsg = _zone(raster, lat, lon)
    grid, size, step = raster.grid, view.size_px, view.resolution_m
    point = np.array([lat]), np.array([lon])
    wkt = utm_wkt(epsg)
    if raster.epsg == epsg and _fits(grid.transform, step):
        x, y = (float(v[0]) for v in grid.system.forward(*point))
        column, row = ~grid.transform * (x, y)
        left, top = round(column - size / 2.0), round(row - size / 2.0)
        transform = grid.transform * Affine.translation(left, top)
        return ChipGrid(PixelGrid(grid.crs_wkt, transform, size, size), epsg, Window(left, top, size, size))
    system = PixelGrid(wkt, Affine.identity(), 1, 1).system
    x, y = (float(v[0]) for v in system.forward(*point))
    up_x, up_y = _up(raster, lat, lon, x, y, wkt) if view.orientation == "raster" else (0.0, 1.0)
    turned = Affine(step * up_y, -step * up_x, x, -step * up_x, -step * up_y, y)
    transform = turned * Affine.translation(-size / 2.0, -size / 2.0)
    return ChipGrid(PixelGrid(wkt, transform, size, size), epsg, None)


def utm_zone(epsg: int) -> str:
    """The name of a zone, such as 33N."""
    return f"{epsg % 100}{'N' if epsg < 32700 else 'S'}"


def _zone(raster: ChipRaster, lat: float, lon: float) -> int:
    if raster.strip_id is not None and raster.epsg is not None:
        middle = 6.0 * (raster.epsg % 100) - 183.0
        far = abs((lon - middle + 180.0) % 360.0 - 180.0)
        if far * math.cos(math.radians(lat)) <= _FARTHEST_DEG:
            return raster.epsg
    return utm_epsg(lat, lon)


def _fits(transform: Affine, step: float) -> bool:
    """Whether pixels are squares of `step`, north up."""
    wanted = (step, 0.0, 0.0, -step)
    return all(
        abs(have - want) <= 1e-9 * step
        for have, want in zip((transform.a, transform.b, transform.d, transform.e), wanted, strict=True)
    )


def _up(raster: ChipRaster, lat: float, lon: float, x: float, y: float, wkt: str) -> tuple[float, float]:
    """The direction, in a UTM zone, in which a raster's rows begin; a unit vector."""
    grid = raster.grid
    at_x, at_y = grid.system.forward(np.array([lat]), np.array([lon]))
    above = grid.system.inverse(at_x - grid.transform.b, at_y - grid.transform.e)
    there_x, there_y = PixelGrid(wkt, Affine.identity(), 1, 1).system.forward(*above)
    dx, dy = float(there_x[0]) - x, float(there_y[0]) - y
    length = math.hypot(dx, dy)
    return dx / length, dy / length
