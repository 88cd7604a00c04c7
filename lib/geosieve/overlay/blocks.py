"""Label the pixels of a block of the grid with their regions, and split mixed pixels into parts.

The grid samples the Earth. Away from borders, the centre of a pixel stands for its whole area. Near a border of a
partition with exact outlines, 4 × 4 points stand for the pixel. Pieces of regions that are too narrow for these points
get sample points of their own, whose weights sum to the exact area of the piece; grid points inside such a piece are
ignored. Partitions that are maps are not split: all parts of a mixed pixel have the pixel's region of the map.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
import shapely
from numpy.typing import NDArray

from geosieve.geo.arrays import F8, I4, I8, Mask
from geosieve.geo.grid import HALF_TURN_ARCSEC, EqualAngleGrid
from geosieve.geo.outlines import lat_lon, unit_vectors
from geosieve.geo.plane import points_inside
from geosieve.geo.sphere import EARTH_RADIUS_KM
from geosieve.overlay.spans import PixelSpans, find_spans, unique_rows
from geosieve.partitions.base import Assigner, Partition
from geosieve.rasters.candidates import NOTHING, CandidateIndex

_BAND_ARCSEC = 512 * 30  # height of a band: 512 rows of a 30″ map, so that each row of tiles is read once
_BAND_PIXELS = 250_000  # minimum size of a band, because every task has a fixed cost
_POINTS = 1_000_000  # points per call of a partition; takes about 100 MB in a worker
_PARTS = 4  # sample points along each side of a mixed pixel
_WHOLE = 1 - 1e-9  # if narrow pieces have this share of a region's area, they are the whole region


@dataclass(frozen=True)
class Narrow:
    """Narrow pieces of a partition's regions, which the grid may miss; arrays of shape (n,).

    `region` is the region index, or OUTSIDE for a hole between regions. Areas are in km²; `wkb` has the shapes in
    (lon, lat) degrees.
    """

    region: I8
    area_km2: F8
    wkb: tuple[bytes, ...]
    regions_whole: Mask  # (n_regions,): whether the region consists of narrow pieces only

    @classmethod
    def of(cls, partition: Partition, grid: EqualAngleGrid) -> Narrow | None:
        """The pieces of `partition` with a mean width below the height of a pixel. None for a map."""
        area = partition.areas_km2()
        if area is None:
            return None
        pieces = partition.pieces(np.pi / grid.rows * EARTH_RADIUS_KM)
        inside = pieces.region >= 0
        held = np.bincount(pieces.region[inside], pieces.area_km2[inside], area.size)
        whole = (held >= _WHOLE * area) & (held > 0)
        return cls(pieces.region, pieces.area_km2, tuple(shapely.to_wkb(pieces.shape).tolist()), whole)

    @cached_property
    def shapes(self) -> NDArray[np.object_]:
        """The pieces as geometries, (n,)."""
        return np.asarray(shapely.from_wkb(np.array(self.wkb, dtype=object)))

    @cached_property
    def _parted(self) -> shapely.STRtree:
        """Spatial index of the holes, and of the pieces of regions that also have wider pieces."""
        parted = (self.region < 0) | ~self.regions_whole[np.maximum(self.region, 0)]
        return shapely.STRtree(self.shapes[parted])

    def holds(self, regions: I4, lat: F8, lon: F8) -> Mask:
        """Whether each point lies in a narrow piece, (n,). `regions`: region of each point; lat, lon in degrees."""
        held = (regions >= 0) & self.regions_whole[np.maximum(regions, 0)]
        if len(self._parted.geometries):
            asked = np.flatnonzero(~held)
            held[asked[self._parted.query(shapely.points(lon[asked], lat[asked]), predicate="intersects")[0]]] = True
        return np.asarray(held)


@dataclass(frozen=True)
class Layer:
    """A partition as workers label with it: its function, its spatial index, and how it is sampled.

    With `reduce` = 1, a pixel has the region at its centre. With `reduce` = k, it has the most frequent region of its
    k × k parts, and the lowest index on a tie: a map k times finer than the grid is reduced by majority. `narrow` is
    set for partitions whose borders are known exactly; `reduce` has no effect on them.
    """

    assigner: Assigner
    index: CandidateIndex = NOTHING
    reduce: int = 1
    narrow: Narrow | None = None

    def regions(self, lat: F8, lon: F8) -> I4:
        """Region index of each point, (n,), below 0 where there is none. lat, lon: degrees, (n,)."""
        return self.assigner.assign(lat, lon, self.index.candidates(lat, lon)).astype(np.int32)


@dataclass(frozen=True)
class Points:
    """Sample points of mixed pixels, arrays (n,): row and column of the pixel, lat and lon in degrees, weight in km².

    `regions`, shape (n, k), has the region of each point in the k exact partitions.
    """

    row: I8
    column: I8
    lat: F8
    lon: F8
    regions: I4
    weight: F8

    def taken(self, chosen: Mask) -> Points:
        """The chosen points."""
        return Points(*(getattr(self, field.name)[chosen] for field in fields(self)))


@dataclass(frozen=True)
class Bands:
    """The grid cut into bands of rows, each labelled block by block. Broadcast to the workers."""

    grid: EqualAngleGrid
    layers: tuple[Layer, ...]
    land: Layer | None

    @property
    def rows_per_band(self) -> int:
        """Rows of every band; the last band may have fewer."""
        by_height = round(_BAND_ARCSEC * self.grid.rows / HALF_TURN_ARCSEC)
        return min(self.grid.rows, max(1, by_height, _BAND_PIXELS // self.grid.cols))

    def __len__(self) -> int:
        """Number of bands."""
        return -(-self.grid.rows // self.rows_per_band)

    @property
    def _exact(self) -> list[tuple[Layer, Narrow]]:
        """The layers whose borders are known exactly."""
        return [(layer, layer.narrow) for layer in self.layers if layer.narrow is not None]

    def runs(self, band: int) -> Iterator[PixelSpans]:
        """Yield the runs and mixed parts of a band, one PixelSpans per block, from west to east."""
        first = band * self.rows_per_band
        rows = np.arange(first, min(first + self.rows_per_band, self.grid.rows))
        finest = max(layer.reduce for layer in (*self.layers, *([self.land] if self.land else [])))
        step = max(1, _POINTS // (rows.size * finest**2))
        own = self._own_points(rows)
        for start in range(0, self.grid.cols, step):
            cols = np.arange(start, min(start + step, self.grid.cols))
            near = np.zeros((rows.size, cols.size), dtype=bool)
            labels = [self._regions(layer, rows, cols, near) for layer in self.layers]
            land = np.zeros_like(near)
            if self.land is not None:
                land = self._regions(self.land, rows, cols, near) >= 0
            yield self._with_parts(rows, cols, np.stack(labels), land, near, own)

    def _regions(self, layer: Layer, rows: I8, cols: I8, near: Mask) -> I4:
        """Region of each pixel of a block, (rows, cols). Sets `near` where an exact border may cross the pixel."""
        k = layer.reduce
        if layer.narrow is not None:
            # The block gets a rim of one pixel. A border may cross a pixel if the 3 × 3 centres around it are not
            # all in one region.
            around = np.arange(max(rows[0] - 1, 0), min(rows[-1] + 2, self.grid.rows))
            wide = np.arange(cols[0] - 1, cols[-1] + 2) % self.grid.cols
            found = self._at_centres(layer, self.grid, around, wide)
            at = rows - around[0]
            padded = found[np.r_[max(at[0] - 1, 0), at, min(at[-1] + 1, around.size - 1)]]
            across, down = padded[:, 1:] != padded[:, :-1], padded[1:] != padded[:-1]
            for i in range(3):
                near |= across[i : i + rows.size, :-1] | across[i : i + rows.size, 1:]
                near |= down[:-1, i : i + cols.size] | down[1:, i : i + cols.size]
            regions = np.ascontiguousarray(found[at, 1:-1])
            if layer.narrow.regions_whole.any():
                near |= (regions >= 0) & layer.narrow.regions_whole[np.maximum(regions, 0)]
            return regions
        grid = EqualAngleGrid(self.grid.rows * k, self.grid.cols * k)
        regions = self._at_centres(layer, grid, _parts(rows, k), _parts(cols, k))
        return regions if k == 1 else _majority(regions, rows.size, cols.size, k)

    @staticmethod
    def _at_centres(layer: Layer, grid: EqualAngleGrid, rows: I8, cols: I8) -> I4:
        """Region at the centre of each pixel, (rows, cols)."""
        lat, lon = grid.centres(rows[:, None], cols[None, :])
        return layer.regions(lat.ravel(), lon.ravel()).reshape(rows.size, cols.size)

    def _own_points(self, rows: I8) -> Points:
        """Sample points of the narrow pieces in a band."""
        edges = self.grid.row_edges()
        north, south = edges[rows[0]], edges[rows[-1] + 1]
        found = [self._points_of(k, south, north) for k in range(len(self._exact))]
        points = [of.taken((of.row >= rows[0]) & (of.row <= rows[-1])) for of in found if of is not None]
        return _together(points, len(self._exact))

    def _points_of(self, k: int, south: float, north: float) -> Points | None:
        """Sample points of the k-th exact partition's narrow pieces that overlap a band of latitudes; None without any.

        Some points may lie outside of the band.
        """
        narrow = self._exact[k][1]
        _, low, _, high = shapely.bounds(narrow.shapes).T
        chosen = np.flatnonzero((low <= north) & (high >= south))
        if chosen.size == 0:
            return None
        piece, lat, lon, share = points_inside(narrow.shapes[chosen], 180 / self.grid.rows / _PARTS)
        piece = chosen[piece]
        regions = np.stack([layer.regions(lat, lon) for layer, _ in self._exact], axis=1)
        regions[:, k] = narrow.region[piece]  # even if rounding moved the point across the border
        pieces = self._pieces_at(regions, lat, lon)
        pieces[:, k] = True
        # Where narrow pieces of several partitions overlap, the points of each get an equal share of the area.
        weight = narrow.area_km2[piece] * share / pieces.sum(axis=1)
        return Points(*self.grid.pixels(lat, lon), lat, lon, regions, weight)

    def _pieces_at(self, regions: I4, lat: F8, lon: F8) -> Mask:
        """Whether each point is in a narrow piece of each exact partition, (n, k)."""
        held = [narrow.holds(regions[:, k], lat, lon) for k, (_, narrow) in enumerate(self._exact)]
        return np.stack(held, axis=1)

    def _grid_points(self, row: I8, column: I8) -> Points:
        """The 4 × 4 points of each pixel, pixel by pixel. Points in narrow pieces have weight 0."""
        inner = np.arange(_PARTS**2)
        fine = EqualAngleGrid(self.grid.rows * _PARTS, self.grid.cols * _PARTS)
        lat, lon = fine.centres(
            (row[:, None] * _PARTS + inner // _PARTS).ravel(), (column[:, None] * _PARTS + inner % _PARTS).ravel()
        )
        regions = np.stack([layer.regions(lat, lon) for layer, _ in self._exact], axis=1)
        weight = np.repeat(self.grid.row_areas_km2()[row] / _PARTS**2, _PARTS**2)
        weight[self._pieces_at(regions, lat, lon).any(axis=1)] = 0.0
        return Points(np.repeat(row, _PARTS**2), np.repeat(column, _PARTS**2), lat, lon, regions, weight)

    def _with_parts(self, rows: I8, cols: I8, labels: I4, land: Mask, near: Mask, own: Points) -> PixelSpans:
        """Runs of a block's whole pixels, and the parts of its mixed pixels."""
        exact = [k for k, layer in enumerate(self.layers) if layer.narrow is not None]
        if not exact:
            return find_spans(int(rows[0]), int(cols[0]), labels, land)
        here = own.taken((own.column >= cols[0]) & (own.column <= cols[-1]))
        has_own = np.zeros_like(near)
        has_own[here.row - rows[0], here.column - cols[0]] = True
        asked = np.flatnonzero(near | has_own)
        mixed = np.zeros(near.size, dtype=bool)
        parts = [here]
        flat = labels.reshape(len(labels), -1)
        for start in range(0, asked.size, _POINTS // _PARTS**2):
            at = asked[start : start + _POINTS // _PARTS**2]
            points = self._grid_points(rows[0] + at // cols.size, cols[0] + at % cols.size)
            counts = (points.weight > 0).reshape(at.size, -1)
            regions = points.regions.reshape(at.size, _PARTS**2, -1)
            one = regions[np.arange(at.size), counts.argmax(axis=1)]
            same = ((regions == one[:, None]).all(axis=2) | ~counts).all(axis=1) & ~has_own.ravel()[at]
            alike = same & counts.any(axis=1)
            flat[np.ix_(exact, at[alike])] = one[alike].T  # all points that count agree: the pixel is whole after all
            mixed[at[~same]] = True
            parts.append(points.taken(np.repeat(~same, _PARTS**2) & (points.weight > 0)))
        points = _together(parts, len(exact))
        block = find_spans(int(rows[0]), int(cols[0]), np.concatenate([labels, [mixed.reshape(near.shape)]]), land)
        whole = block.taken(block.labels[:, -1] == 0)
        whole = PixelSpans.whole(whole.row, whole.column, whole.length, whole.land, whole.labels[:, :-1])
        return PixelSpans.together(whole, _parts_of_pixels(points, rows, cols, labels, land, exact))


def _parts_of_pixels(points: Points, rows: I8, cols: I8, labels: I4, land: Mask, exact: list[int]) -> PixelSpans:
    """Group the points of each pixel by their regions: one part per group. The shares of a pixel sum to 1."""
    pixel = (points.row - rows[0]) * cols.size + points.column - cols[0]
    distinct, part = unique_rows(np.column_stack([pixel, points.regions]))
    n = len(distinct)
    weight = np.bincount(part, points.weight, n)
    vectors = unit_vectors(points.lat, points.lon) * points.weight[:, None]
    lat, lon = lat_lon(np.stack([np.bincount(part, of, n) for of in vectors.T], axis=-1))
    at = distinct[:, 0].astype(np.int64)
    share = weight / np.bincount(at, weight, land.size)[at]
    regions = labels.reshape(len(labels), -1)[:, at].T.astype(np.int64)
    regions[:, exact] = distinct[:, 1:]
    row, column = np.divmod(at, cols.size)
    return PixelSpans(row + rows[0], column + cols[0], np.ones(n, np.int64), land.ravel()[at], regions, share, lat, lon)


def _together(points: list[Points], k: int) -> Points:
    """All points in one; `k`: number of exact partitions, for an empty list."""
    none = np.empty(0, np.int64)
    empty = Points(none, none, np.empty(0), np.empty(0), np.empty((0, k), np.int32), np.empty(0))
    return Points(*(np.concatenate([getattr(of, f.name) for of in (empty, *points)]) for f in fields(Points)))


def _parts(index: I8, k: int) -> I8:
    """Rows (or columns) of a k times finer grid that lie in these rows (or columns)."""
    return (index[:, None] * k + np.arange(k)).ravel()


def _majority(regions: I4, rows: int, cols: int, k: int) -> I4:
    """Most frequent region of each block of k × k parts, (rows, cols); the lowest index on a tie."""
    parts = regions.reshape(rows, k, cols, k)
    winner = np.zeros((rows, cols), dtype=np.int32)
    most = np.zeros((rows, cols), dtype=np.int64)
    for region in np.unique(regions):  # a raster has few regions; ascending, so that the lowest index wins ties
        count = (parts == region).sum(axis=(1, 3))
        winner[count > most] = region
        most = np.maximum(most, count)
    return winner
