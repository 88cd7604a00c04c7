"""Connected patches of a ranking's leading atoms, as answers are shown to people."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from geosieve.ensemble.ranking import Ranking
from geosieve.geo.arrays import F8, I8
from geosieve.geo.grid import EqualAngleGrid
from geosieve.geo.ranges import ranges
from geosieve.overlay.atoms import AtomGrid
from geosieve.overlay.spans import PixelSpans, describe, sum_up


@dataclass(frozen=True)
class Patches:
    """Connected patches of one image's leading atoms, arrays (patches,), the patch with the densest atom first.

    `lat`, `lon`: centroid; `south` to `east`: bounding box; all in degrees. A box that crosses ±180 has west > east.
    """

    probability: F8
    area_km2: F8
    lat: F8
    lon: F8
    south: F8
    west: F8
    north: F8
    east: F8

    def __len__(self) -> int:
        return self.area_km2.size


def patches(ranking: Ranking, grid: AtomGrid, image: int, n: int) -> Patches:
    """Merge the pixels of the `n` leading atoms of an image into patches, where pixels share an edge.

    `image`: row of the ranking. All parts of one mixed pixel count as touching. The area and probability of an atom are
    distributed over its pixels in proportion to their area. InputError if `grid` belongs to another overlay than the
    ranking.
    """
    grid.check(ranking.overlay)
    n = min(n, ranking.overlay.n_atoms)
    rank = np.full(ranking.overlay.n_atoms, n)
    rank[ranking.atom[image, :n]] = np.arange(n)
    runs, atom = _chosen(grid, rank < n)
    piece = _components(grid.grid, runs)
    _, first = np.unique(piece, return_index=True)
    best = np.full(first.size, n)
    np.minimum.at(best, piece, rank[atom])
    number = np.argsort(np.argsort(best, kind="stable"))[piece]  # stable: two patches may begin with the same atom
    _, facts = sum_up(grid.grid, replace(runs, labels=number[:, None]))
    told = describe(grid.grid, facts)
    # The atoms' areas are exact, those of their pixels are not: distribute the former by the latter.
    part = runs.length * runs.share * grid.grid.row_areas_km2()[runs.row]
    part = part / np.bincount(atom, part)[atom]
    told["area_km2"] = np.bincount(number, part * ranking.overlay.area_km2[atom])
    share = ranking.probability[image, rank[atom]] * part
    names = ("area_km2", "lat", "lon", "south", "west", "north", "east")
    return Patches(*(np.asarray(of, np.float64) for of in (np.bincount(number, share), *map(told.get, names))))


def _chosen(grid: AtomGrid, chosen: NDArray[np.bool_]) -> tuple[PixelSpans, I8]:
    """Runs and parts of the chosen atoms (a mask, (atoms,)), without labels, and the atom of each."""
    at = np.flatnonzero(chosen[grid.atoms])
    after = np.searchsorted(grid.starts, grid.starts[at], side="right")
    end = np.append(grid.starts, grid.grid.rows * grid.grid.cols)[after]
    row, column = np.divmod(grid.starts[at], grid.grid.cols)
    none = np.zeros(at.size, dtype=bool)
    runs = PixelSpans.whole(row, column, end - grid.starts[at], none, np.empty((at.size, 0), np.int64))
    return replace(runs, share=grid.share[at]), grid.atoms[at]


def _components(grid: EqualAngleGrid, runs: PixelSpans) -> I8:
    """Index of the connected patch of each run, (n,). `runs` are sorted by row and column."""
    start = runs.row * grid.cols + runs.column
    end = start + runs.length
    # Runs in the row below whose columns overlap.
    low = np.searchsorted(end, start + grid.cols, side="right")
    high = np.searchsorted(start, end + grid.cols, side="left")
    n = np.maximum(high - low, 0)
    above = np.repeat(np.arange(len(runs)), n)
    below = ranges(low, n)
    beside = np.flatnonzero((end[:-1] == start[1:]) & (runs.row[:-1] == runs.row[1:]))
    same = np.flatnonzero(start[:-1] == start[1:])  # parts of a mixed pixel
    # At ±180, the end of a row touches its beginning.
    easternmost, westernmost = np.flatnonzero(runs.column + runs.length == grid.cols), np.flatnonzero(runs.column == 0)
    _, of_east, of_west = np.intersect1d(runs.row[easternmost], runs.row[westernmost], return_indices=True)
    one = np.concatenate([above, beside, same, easternmost[of_east]])
    other = np.concatenate([below, beside + 1, same + 1, westernmost[of_west]])
    links = coo_array((np.ones(one.size, dtype=bool), (one, other)), shape=(len(runs), len(runs)))
    return np.asarray(connected_components(links, directed=False)[1], dtype=np.int64)
