"""The overlay's grid as runs of equal pixels and parts of mixed pixels, and the sums of both by atom.

A run is a sequence of neighbouring pixels in one grid row that have the same region in every partition. A mixed pixel
is one that a border crosses or that contains a small region; it is stored as one entry per part. Sums are taken band by
band in grid order, so that the result does not depend on how the bands were distributed among tasks.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geosieve.geo.arrays import F8, I8
from geosieve.geo.grid import EqualAngleGrid
from geosieve.geo.outlines import lat_lon, unit_vectors
from geosieve.geo.sphere import EARTH_RADIUS_KM

Facts = dict[str, NDArray[Any]]

_DECIMALS = 9  # decimals of centroids in degrees

SUMS = ("pixels", "area", "x", "y", "z", "land_area")
"""Facts that add up: pixels (mixed pixels count for each of their parts), area and land area in km², and the integral
(x, y, z) of the unit vector over the area."""
LEAST = ("north_row", "west", "west_shifted")
GREATEST = ("south_row", "east", "east_shifted")
"""Bounding boxes in rows and columns. `_shifted` columns count from the meridian 0 instead of -180."""


@dataclass(frozen=True)
class PixelSpans:
    """Runs of whole pixels and parts of mixed pixels, sorted by row and column; arrays of shape (n,).

    `row` and `column` are those of the first pixel, `length` is the number of pixels. `labels`, shape (n, partitions),
    has the region index in each partition. A run of whole pixels has `share` 1 and NaN for `lat` and `lon`. A part of a
    mixed pixel has length 1; `share` is its share of the pixel's area, `lat` and `lon` its centroid in degrees.
    """

    row: I8
    column: I8
    length: I8
    land: NDArray[np.bool_]
    labels: I8
    share: F8
    lat: F8
    lon: F8

    def __len__(self) -> int:
        return self.row.size

    @classmethod
    def whole(cls, row: I8, column: I8, length: I8, land: NDArray[np.bool_], labels: I8) -> PixelSpans:
        """Runs of whole pixels."""
        nowhere = np.full(row.size, np.nan)
        return cls(row, column, length, land, labels, np.ones(row.size), nowhere, nowhere)

    def taken(self, chosen: NDArray[np.bool_] | I8) -> PixelSpans:
        """The chosen entries (a mask or indices)."""
        return PixelSpans(*(getattr(self, field.name)[chosen] for field in fields(self)))

    @classmethod
    def together(cls, first: PixelSpans, second: PixelSpans) -> PixelSpans:
        """The entries of both, sorted by row and column."""
        both = cls(*(np.concatenate([getattr(of, f.name) for of in (first, second)]) for f in fields(cls)))
        return both.taken(np.lexsort((both.column, both.row)))


def find_spans(first_row: int, first_column: int, labels: NDArray[np.int32], land: NDArray[np.bool_]) -> PixelSpans:
    """Find the runs of a block of whole pixels; a run ends where a label or `land` changes, and at the block's edge.

    `first_row`, `first_column`: position of the block in the grid. `labels`: (partitions, rows, columns); `land`:
    (rows, columns).
    """
    _, rows, columns = labels.shape
    starts = np.ones((rows, columns), dtype=bool)
    starts[:, 1:] = land[:, 1:] != land[:, :-1]
    for layer in labels:
        starts[:, 1:] |= layer[:, 1:] != layer[:, :-1]
    at = np.flatnonzero(starts)
    row, column = np.divmod(at, columns)
    length = np.diff(at, append=rows * columns)
    values = labels.reshape(len(labels), -1)[:, at].T.astype(np.int64)
    return PixelSpans.whole(row + first_row, column + first_column, length, land.ravel()[at], values)


def unique_rows(values: I8) -> tuple[I8, I8]:
    """Distinct rows of an (n, k) array in lexicographic order, (m, k), and the index of each row among them, (n,)."""
    code = np.zeros(len(values), dtype=np.int64)
    for column in values.T:
        known, inverse = np.unique(column, return_inverse=True)
        # Renumbered after each column, so that codes stay below n and the products below n², without overflow.
        _, code = np.unique(code * known.size + inverse, return_inverse=True)
    _, first = np.unique(code, return_index=True)
    return values[first], code


def sum_up(grid: EqualAngleGrid, runs: PixelSpans) -> tuple[I8, Facts]:
    """Sum up runs by atom: their distinct labels, (m, k), and the facts named in SUMS, LEAST and GREATEST, (m,)."""
    return merge(runs.labels, _facts(grid, runs))


def merge(labels: I8, facts: Facts) -> tuple[I8, Facts]:
    """Combine the facts, arrays (n,), of equal rows of `labels` (n, k), by sum, minimum or maximum.

    Returns the distinct rows in lexicographic order, (m, k), and their facts, (m,). Sums add in the order of the rows.
    """
    distinct, group = unique_rows(labels)
    order = np.argsort(group, kind="stable")
    first = np.searchsorted(group[order], np.arange(len(distinct)))
    merged = {}
    for names, function in ((SUMS, np.add), (LEAST, np.minimum), (GREATEST, np.maximum)):
        for name in names:
            merged[name] = function.reduceat(facts[name][order], first) if len(distinct) else facts[name]
    return distinct, merged


def _facts(grid: EqualAngleGrid, runs: PixelSpans) -> Facts:
    """Facts of each run or part, (n,)."""
    end = runs.column + runs.length
    shifted = (runs.column + grid.cols // 2) % grid.cols
    wraps = shifted + runs.length > grid.cols  # crosses the meridian 0
    area = runs.length * runs.share * grid.row_areas_km2()[runs.row]
    return {
        "pixels": runs.length,
        "area": area,
        **_moments(grid, runs, area),
        "land_area": np.where(runs.land, area, 0.0),
        "north_row": runs.row,
        "south_row": runs.row + 1,
        "west": runs.column,
        "east": end,
        "west_shifted": np.where(wraps, 0, shifted),
        "east_shifted": np.where(wraps, grid.cols, shifted + runs.length),
    }


def _moments(grid: EqualAngleGrid, runs: PixelSpans, area: F8) -> dict[str, F8]:
    """Integral of the unit vector over each run or part, km²: x, y and z, (n,).

    A run is a rectangle in latitude and longitude, which has a closed form. A part is taken as a point.
    """
    phi = np.radians(grid.row_edges())
    # ∫ cos² φ dφ and ∫ sin φ cos φ dφ over each row
    across = -np.diff(phi / 2 + np.sin(2 * phi) / 4)
    up = -np.diff(np.sin(phi) ** 2) / 2
    west = np.radians(runs.column * (360 / grid.cols) - 180)
    width = np.radians(runs.length * (360 / grid.cols))
    # sin b - sin a and cos a - cos b by half angles, so that narrow runs lose no digits
    chord, middle = 2 * np.sin(width / 2), west + width / 2
    whole = EARTH_RADIUS_KM**2 * np.column_stack(
        [
            across[runs.row] * chord * np.cos(middle),
            across[runs.row] * chord * np.sin(middle),
            up[runs.row] * width,
        ]
    )
    part = np.flatnonzero(np.isfinite(runs.lat))
    whole[part] = area[part, None] * unit_vectors(runs.lat[part], runs.lon[part])
    return dict(zip("xyz", whole.T, strict=True))


def describe(grid: EqualAngleGrid, facts: Facts) -> Facts:
    """Columns of `overlay_atoms` from merged facts: pixels, km², centroid and bounding box in degrees, land share."""
    lat, lon = lat_lon(np.stack([facts[name].astype(np.float64) for name in "xyz"], axis=-1))
    # Rounded to 0.1 mm: two builds of one overlay differed in the last digit of a centroid.
    lat, lon = lat.round(_DECIMALS), lon.round(_DECIMALS)
    edges = grid.row_edges()
    plain = facts["east"] - facts["west"]
    shifted = facts["east_shifted"] - facts["west_shifted"]
    # Take the narrower of both boxes. If a box crosses ±180, its west is greater than its east (RFC 7946).
    crosses = shifted < plain
    west = np.where(crosses, facts["west_shifted"] + grid.cols // 2, facts["west"]) * (360 / grid.cols) - 180
    east = np.where(crosses, facts["east_shifted"] + grid.cols // 2, facts["east"]) * (360 / grid.cols) - 180
    return {
        "pixels": facts["pixels"],
        "area_km2": facts["area"],
        "lat": lat,
        "lon": lon,
        "south": edges[facts["south_row"]],
        "west": np.where(west >= 180, west - 360, west),
        "north": edges[facts["north_row"]],
        "east": np.where(east > 180, east - 360, east),
        "land_share": facts["land_area"] / facts["area"],
    }
