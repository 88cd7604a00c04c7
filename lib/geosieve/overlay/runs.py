"""The overlay's grid as runs of equal pixels, and atoms summed up from runs.

A run is a stretch of pixels along a row of an equal-angle grid that have the same region in every partition. Sums are
whole numbers, so that they do not depend on how the rows were shared out among tasks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geosieve.geo.grid import EqualAngleGrid
from geosieve.geo.outlines import lat_lon
from geosieve.geo.sphere import EARTH_RADIUS_KM

I8 = NDArray[np.int64]
F8 = NDArray[np.float64]

KM2_PER_UNIT = 1e-10
"""Areas and moments are counted in units of 1 cm²: the whole Earth is 5.1e18, and int64 ends at 9.2e18."""

SUMS = ("pixels", "area", "x", "y", "z", "land_area")
"""Pixels, area, area times the unit vector to it, and area of land; added up over runs."""
LEAST = ("north_row", "west", "west_shifted")
GREATEST = ("south_row", "east", "east_shifted")
"""Limits in rows and columns; `_shifted` counts columns from the meridian 0 instead of 180."""


@dataclass(frozen=True)
class Runs:
    """Runs in the order of rows and columns; `labels` has a row a run and a column a partition."""

    row: I8
    column: I8
    length: I8
    land: NDArray[np.bool_]
    labels: I8

    def __len__(self) -> int:
        return self.row.size


def find_runs(first_row: int, first_column: int, labels: NDArray[np.int32], land: NDArray[np.bool_]) -> Runs:
    """Runs of a block of the grid: `labels` (partitions, rows, columns) and `land` (rows, columns) of its pixels."""
    _, rows, columns = labels.shape
    starts = np.ones((rows, columns), dtype=bool)
    starts[:, 1:] = land[:, 1:] != land[:, :-1]
    for layer in labels:
        starts[:, 1:] |= layer[:, 1:] != layer[:, :-1]
    at = np.flatnonzero(starts)
    row, column = np.divmod(at, columns)
    length = np.diff(at, append=rows * columns)
    values = labels.reshape(len(labels), -1)[:, at].T.astype(np.int64)
    return Runs(row + first_row, column + first_column, length, land.ravel()[at], values)


def unique_rows(values: I8) -> tuple[I8, I8]:
    """Different rows of an (n, k) array in lexicographic order, and the number of each row's equal among them."""
    code = np.zeros(len(values), dtype=np.int64)
    for column in values.T:
        known, inverse = np.unique(column, return_inverse=True)
        # Renumbered after each column: a code stays below n, and its product with a column's values below n².
        _, code = np.unique(code * known.size + inverse, return_inverse=True)
    _, first = np.unique(code, return_index=True)
    return values[first], code


def sum_up(grid: EqualAngleGrid, runs: Runs) -> tuple[I8, dict[str, I8]]:
    """Distinct labels of the runs (m, k), and for each what SUMS, LEAST and GREATEST name."""
    labels, group = unique_rows(runs.labels)
    facts = _facts(grid, runs)
    order = np.argsort(group, kind="stable")
    first = np.searchsorted(group[order], np.arange(len(labels)))
    merged = {}
    for names, merge in ((SUMS, np.add), (LEAST, np.minimum), (GREATEST, np.maximum)):
        for name in names:
            merged[name] = merge.reduceat(facts[name][order], first) if len(labels) else facts[name]
    return labels, merged


def _facts(grid: EqualAngleGrid, runs: Runs) -> dict[str, I8]:
    end = runs.column + runs.length
    shifted = (runs.column + grid.cols // 2) % grid.cols
    wraps = shifted + runs.length > grid.cols  # crosses the meridian 0
    area = runs.length * np.rint(grid.row_areas_km2() / KM2_PER_UNIT).astype(np.int64)[runs.row]
    return {
        "pixels": runs.length,
        "area": area,
        **_moments(grid, runs),
        "land_area": np.where(runs.land, area, 0),
        "north_row": runs.row,
        "south_row": runs.row + 1,
        "west": runs.column,
        "east": end,
        "west_shifted": np.where(wraps, 0, shifted),
        "east_shifted": np.where(wraps, grid.cols, shifted + runs.length),
    }


def _moments(grid: EqualAngleGrid, runs: Runs) -> dict[str, I8]:
    """Integral of the unit vector over each run, a rectangle in latitude and longitude, closed form."""
    phi = np.radians(grid.row_edges())
    # ∫ cos² φ dφ and ∫ sin φ cos φ dφ over each row
    across = -np.diff(phi / 2 + np.sin(2 * phi) / 4)
    up = -np.diff(np.sin(phi) ** 2) / 2
    west = np.radians(runs.column * (360 / grid.cols) - 180)
    width = np.radians(runs.length * (360 / grid.cols))
    # sin b - sin a and cos a - cos b by half angles: narrow runs keep their digits
    chord, middle = 2 * np.sin(width / 2), west + width / 2
    scale = EARTH_RADIUS_KM**2 / KM2_PER_UNIT
    parts = {
        "x": across[runs.row] * chord * np.cos(middle),
        "y": across[runs.row] * chord * np.sin(middle),
        "z": up[runs.row] * width,
    }
    return {name: np.rint(part * scale).astype(np.int64) for name, part in parts.items()}


def describe(grid: EqualAngleGrid, facts: dict[str, I8]) -> dict[str, NDArray[np.generic]]:
    """Columns of `overlay_atoms` from summed facts: pixels, area, centroid, bounding box, land share."""
    lat, lon = lat_lon(np.stack([facts[name].astype(np.float64) for name in "xyz"], axis=-1))
    edges = grid.row_edges()
    plain = facts["east"] - facts["west"]
    shifted = facts["east_shifted"] - facts["west_shifted"]
    # The narrower of both boxes; one that crosses ±180 has its west east of its east (RFC 7946).
    crosses = shifted < plain
    west = np.where(crosses, facts["west_shifted"] + grid.cols // 2, facts["west"]) * (360 / grid.cols) - 180
    east = np.where(crosses, facts["east_shifted"] + grid.cols // 2, facts["east"]) * (360 / grid.cols) - 180
    return {
        "pixels": facts["pixels"],
        "area_km2": facts["area"] * KM2_PER_UNIT,
        "lat": lat,
        "lon": lon,
        "south": edges[facts["south_row"]],
        "west": np.where(west >= 180, west - 360, west),
        "north": edges[facts["north_row"]],
        "east": np.where(east > 180, east - 360, east),
        "land_share": facts["land_area"] / facts["area"],
    }
