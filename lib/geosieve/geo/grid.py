"""The equal-angle grid: rows by latitude from the north pole, columns by longitude from -180 eastward."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geosieve.geo.sphere import Floats, cell_area_km2, checked_lat, normalize_lon, require

HALF_TURN_ARCSEC = 180 * 3600

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class EqualAngleGrid:
    """A grid of rows × cols pixels over the whole globe. Row 0 is at the north pole, column 0 begins at -180.

    The northern and western edges of a pixel belong to it; the south pole belongs to the last row. An edge lies at the
    float64 nearest to its true degree, and points are compared with exactly this number. ValueError if there are no
    rows or no columns.
    """

    rows: int
    cols: int

    def __post_init__(self) -> None:
        if self.rows < 1 or self.cols < 1:
            raise ValueError(f"grid of {self.rows} x {self.cols} pixels: both must be at least 1")

    @classmethod
    def from_arcsec(cls, arcsec: float) -> EqualAngleGrid:
        """Return the grid with pixels of this width and height in arcseconds. ValueError unless it divides 180°."""
        rows = round(HALF_TURN_ARCSEC / arcsec) if 0 < arcsec <= HALF_TURN_ARCSEC else 0
        if rows * arcsec != HALF_TURN_ARCSEC:
            raise ValueError(f'pixels of {arcsec}" do not divide 180 degrees ({HALF_TURN_ARCSEC}") exactly')
        return cls(rows, 2 * rows)

    def pixels(self, lat: ArrayLike, lon: ArrayLike) -> tuple[Ints, Ints]:
        """Return (row, col) of the pixels that contain the points.

        Coordinates are in degrees and their shapes broadcast; longitudes are wrapped. ValueError if a latitude is
        outside [-90, 90] or a coordinate is not finite.
        """
        lat, lon = np.broadcast_arrays(checked_lat(lat), normalize_lon(lon))
        row = np.clip(((90 - lat) * self.rows / 180).astype(np.int64), 0, self.rows - 1)
        col = np.clip(((lon + 180) * self.cols / 360).astype(np.int64), 0, self.cols - 1)
        # 90 - lat and lon + 180 are rounded, which can move a point across a nearby edge.
        row += lat <= self._edge_lat(row + 1)
        row -= lat > self._edge_lat(row)
        col += lon >= self._edge_lon(col + 1)
        col -= lon < self._edge_lon(col)
        return np.minimum(row, self.rows - 1), col

    def centres(self, row: ArrayLike, col: ArrayLike) -> tuple[Floats, Floats]:
        """Return (lat, lon), degrees, of pixel centres; shapes broadcast. ValueError if a pixel is outside the grid."""
        row, col = np.asarray(row), np.asarray(col)
        require((row >= 0) & (row < self.rows), row, f"the grid has rows 0 to {self.rows - 1}")
        require((col >= 0) & (col < self.cols), col, f"the grid has columns 0 to {self.cols - 1}")
        row, col = np.broadcast_arrays(row, col)
        return self._edge_lat(row + 0.5), self._edge_lon(col + 0.5)

    def row_edges(self) -> Floats:
        """Return the latitudes of the rows' edges, degrees, from 90 down to -90, shape (rows + 1,)."""
        return self._edge_lat(np.arange(self.rows + 1))

    def row_areas_km2(self) -> Floats:
        """Return the area of one pixel of each row, km², on the sphere of mean radius, north to south, (rows,)."""
        edges = self.row_edges()
        return cell_area_km2(edges[1:], edges[:-1], 360 / self.cols)

    # Multiply before dividing: products of integers are exact, so that only the quotient is rounded.
    def _edge_lat(self, row: NDArray[np.int64] | Floats) -> Floats:
        return np.asarray((self.rows - 2 * row) * 90.0 / self.rows)

    def _edge_lon(self, col: NDArray[np.int64] | Floats) -> Floats:
        return np.asarray((2 * col - self.cols) * 180.0 / self.cols)
