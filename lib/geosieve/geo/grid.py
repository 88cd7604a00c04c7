"""The equal-angle grid: rows of latitude from the north, columns of longitude from the 180th meridian."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geosieve.geo.sphere import Floats, cell_area_km2, checked_lat, normalize_lon, require

HALF_TURN_ARCSEC = 180 * 3600

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class EqualAngleGrid:
    """A grid of rows x cols pixels over the whole globe, row 0 at the north pole, column 0 east of -180.

    A pixel owns its northern and its western edge; the last row owns the south pole as well. Edges are at the
    float64 nearest to their true degree, and a point is compared with exactly those.
    """

    rows: int
    cols: int

    def __post_init__(self) -> None:
        if self.rows < 1 or self.cols < 1:
            raise ValueError(f"grid of {self.rows} x {self.cols} pixels: both must be at least 1")

    @classmethod
    def from_arcsec(cls, arcsec: float) -> EqualAngleGrid:
        """Return the grid of pixels of this width and height; ValueError if they do not divide 180 deg."""
        rows = round(HALF_TURN_ARCSEC / arcsec) if 0 < arcsec <= HALF_TURN_ARCSEC else 0
        if rows * arcsec != HALF_TURN_ARCSEC:
            raise ValueError(f'pixels of {arcsec}" do not divide 180 degrees ({HALF_TURN_ARCSEC}") exactly')
        return cls(rows, 2 * rows)

    def pixels(self, lat: ArrayLike, lon: ArrayLike) -> tuple[Ints, Ints]:
        """Return (row, col) of the pixels that contain the points.

        Degrees, shapes broadcast; longitudes wrap. ValueError at a latitude outside [-90, 90] or a coordinate
        that is not finite.
        """
        lat, lon = np.broadcast_arrays(checked_lat(lat), normalize_lon(lon))
        row = np.clip(((90 - lat) * self.rows / 180).astype(np.int64), 0, self.rows - 1)
        col = np.clip(((lon + 180) * self.cols / 360).astype(np.int64), 0, self.cols - 1)
        # 90 - lat and lon + 180 round, which can carry a point over an edge beside it.
        row += lat <= self._edge_lat(row + 1)
        row -= lat > self._edge_lat(row)
        col += lon >= self._edge_lon(col + 1)
        col -= lon < self._edge_lon(col)
        return np.minimum(row, self.rows - 1), col

    def centres(self, row: ArrayLike, col: ArrayLike) -> tuple[Floats, Floats]:
        """Return (lat, lon), degrees, of pixel centres, shapes broadcast; ValueError outside the grid."""
        row, col = np.asarray(row), np.asarray(col)
        require((row >= 0) & (row < self.rows), row, f"the grid has rows 0 to {self.rows - 1}")
        require((col >= 0) & (col < self.cols), col, f"the grid has columns 0 to {self.cols - 1}")
        row, col = np.broadcast_arrays(row, col)
        return self._edge_lat(row + 0.5), self._edge_lon(col + 0.5)

    def row_edges(self) -> Floats:
        """Return the rows + 1 latitudes, degrees, that bound the rows, from 90 down to -90."""
        return self._edge_lat(np.arange(self.rows + 1))

    def row_areas_km2(self) -> Floats:
        """Return the area, km2, of one pixel of each row, north to south, on the sphere of mean radius."""
        edges = self.row_edges()
        return cell_area_km2(edges[1:], edges[:-1], 360 / self.cols)

    # Multiplied before divided: whole numbers stay exact, the single rounding is the quotient's.
    def _edge_lat(self, row: NDArray[np.int64] | Floats) -> Floats:
        return np.asarray((self.rows - 2 * row) * 90.0 / self.rows)

    def _edge_lon(self, col: NDArray[np.int64] | Floats) -> Floats:
        return np.asarray((2 * col - self.cols) * 180.0 / self.cols)
