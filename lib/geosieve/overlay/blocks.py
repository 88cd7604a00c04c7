"""The regions of every pixel of a block of the grid."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geosieve.geo.grid import HALF_TURN_ARCSEC, EqualAngleGrid
from geosieve.overlay.runs import Runs, find_runs
from geosieve.partitions.base import Partition
from geosieve.partitions.nearby import NOTHING, CellIndex

I4 = NDArray[np.int32]
I8 = NDArray[np.int64]

_BAND_ARCSEC = 512 * 30  # height of a band: 512 rows of a 30″ map, so that a row of its tiles is read once
_BAND_PIXELS = 250_000  # a band has at least as many: a task has a cost of its own
_POINTS = 1_000_000  # points that a block asks a partition for; some 100 MB in a worker


@dataclass(frozen=True)
class Layer:
    """A partition, what is near what, and how many points a pixel's side are asked for its region.

    With `reduce` k a pixel's region is the one of most of its k × k parts, of equals the lowest index: a map k times
    finer than the grid is reduced by majority. With 1 it is the region at the pixel's centre.
    """

    partition: Partition
    index: CellIndex = NOTHING
    reduce: int = 1


@dataclass(frozen=True)
class Bands:
    """The grid cut into bands of rows, each labelled block by block; lives in the workers."""

    grid: EqualAngleGrid
    layers: tuple[Layer, ...]
    land: Layer | None

    @property
    def rows_per_band(self) -> int:
        by_height = round(_BAND_ARCSEC * self.grid.rows / HALF_TURN_ARCSEC)
        return min(self.grid.rows, max(1, by_height, _BAND_PIXELS // self.grid.cols))

    def __len__(self) -> int:
        return -(-self.grid.rows // self.rows_per_band)

    def runs(self, band: int, base: tuple[I8, NDArray[np.bool_]] | None = None) -> Iterator[Runs]:
        """Runs of a band, block by block from the west.

        `base`: atoms of an overlay that is refined, and its land, of every pixel of the band, shape (rows, cols). They
        become the first label.
        """
        first = band * self.rows_per_band
        rows = np.arange(first, min(first + self.rows_per_band, self.grid.rows))
        finest = max(layer.reduce for layer in (*self.layers, *([self.land] if self.land else [])))
        step = max(1, _POINTS // (rows.size * finest**2))
        for start in range(0, self.grid.cols, step):
            cols = np.arange(start, min(start + step, self.grid.cols))
            labels = [self._regions(layer, rows, cols) for layer in self.layers]
            land = np.zeros((rows.size, cols.size), dtype=bool)
            if base is not None:
                labels.insert(0, base[0][:, cols].astype(np.int32))
                land = base[1][:, cols]
            if self.land is not None:
                land = self._regions(self.land, rows, cols) >= 0
            yield find_runs(first, start, np.stack(labels), land)

    def _regions(self, layer: Layer, rows: I8, cols: I8) -> I4:
        """Region of each pixel of a block, shape (rows, cols)."""
        k = layer.reduce
        grid = EqualAngleGrid(self.grid.rows * k, self.grid.cols * k)
        lat, lon = grid.centres(_parts(rows, k)[:, None], _parts(cols, k)[None, :])
        lat, lon = lat.ravel(), lon.ravel()
        regions = layer.partition.assign(lat, lon, layer.index.nearby(lat, lon)).astype(np.int32)
        return regions.reshape(rows.size, cols.size) if k == 1 else _majority(regions, rows.size, cols.size, k)


def _parts(index: I8, k: int) -> I8:
    return (index[:, None] * k + np.arange(k)).ravel()


def _majority(regions: I4, rows: int, cols: int, k: int) -> I4:
    parts = regions.reshape(rows, k, cols, k)
    winner = np.zeros((rows, cols), dtype=np.int32)
    most = np.zeros((rows, cols), dtype=np.int64)
    for region in np.unique(regions):  # of a raster few; ascending, so that equals go to the lowest
        count = (parts == region).sum(axis=(1, 3))
        winner[count > most] = region
        most = np.maximum(most, count)
    return winner
