"""Geocells: clusters of images found by OPTICS, and the spherical Voronoi cells of their centroids.

After the Stanford report and PIGEON (Haas et al. 2023): OPTICS with great-circle distances, its parameters chosen by
silhouette and Davies-Bouldin; points without a cluster go to the nearest centroid; centroids are recomputed on the
sphere. Each cell is clustered once more inside.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.spatial import cKDTree
from scipy.stats import rankdata
from sklearn.cluster import OPTICS, cluster_optics_xi
from sklearn.metrics import davies_bouldin_score, silhouette_score

from geosieve.geo import s2
from geosieve.geo.arrays import F8, I8
from geosieve.geo.outlines import OCTANTS, clip, lat_lon, unit_vectors
from geosieve.geo.sphere import EARTH_RADIUS_KM

_SCORED = 5_000  # points of which the silhouette takes all distances
_SEED = 0
_TIES = 8  # more centroids than that are not equally near but on purpose


@dataclass(frozen=True)
class Search:
    """OPTICS parameters to try: every pair of min_samples and xi; clusters must be `fewest` to `most`."""

    min_samples: tuple[int, ...]
    xi: tuple[float, ...]
    max_eps_km: float
    fewest: int
    most: int


@dataclass(frozen=True)
class NearestCentroid:
    """Spherical Voronoi cells: a point belongs to the nearest centroid, of equally near ones to the first.

    `vectors`, shape (n, 3), are unit vectors. Inside another partition, `parents` says in which of its cells each
    centroid lies; a point then belongs to one of the centroids of its own cell.
    """

    vectors: F8
    parents: I8 | None = None

    @cached_property
    def _tree(self) -> cKDTree:
        return cKDTree(_apart(self.vectors, self.parents))

    def assign(self, points: F8, cells: I8 | None = None) -> I8:
        """Index of the centroid of unit vectors, shape (m, 3), whose parents are `cells`."""
        points = _apart(points, cells)
        distance, found = self._nearest(points, 2)
        nearest = found[:, 0]
        tied = np.flatnonzero(distance[:, 0] == distance[:, -1])
        if tied.size and len(self.vectors) > 1:
            distance, found = self._nearest(points[tied], _TIES)
            equal = distance == distance[:, :1]
            nearest[tied] = np.where(equal, found, len(self.vectors)).min(axis=1)
        return nearest

    def _nearest(self, points: F8, k: int) -> tuple[F8, I8]:
        distance, found = self._tree.query(points, k=range(1, min(k, len(self.vectors)) + 1))
        return distance, found.astype(np.int64)


def _apart(vectors: F8, cells: I8 | None) -> F8:
    """A fourth coordinate that keeps cells further apart than any two points of the sphere."""
    return vectors if cells is None else np.column_stack([vectors, 4.0 * cells])


def centroids(vectors: F8, labels: I8) -> F8:
    """Mean directions, shape (n, 3), of unit vectors by label; labels below 0 are left out."""
    n = int(labels.max()) + 1
    has = labels >= 0
    sums = np.column_stack([np.bincount(labels[has], column[has], n) for column in vectors.T])
    return np.asarray(sums / np.linalg.norm(sums, axis=1, keepdims=True))


def find_cells(lat: F8, lon: F8, search: Search) -> tuple[F8, F8, list[dict[str, Any]]]:
    """Centroids (lat, lon), in the order of their S2 ids, of the best clustering, and the table of the search.

    Best is the least sum of two ranks: silhouette (haversine; greatest is best) and Davies-Bouldin (chords; least is
    best), both of the cells that result, all points included; then the first tried. No centroid if no clustering has
    as many clusters as asked for.
    """
    vectors, radians = unit_vectors(lat, lon), np.radians(np.column_stack([lat, lon]))
    rng = np.random.default_rng(_SEED)
    scored = np.sort(rng.permutation(lat.size)[:_SCORED])
    trials: list[dict[str, Any]] = []
    results: list[F8] = []
    for min_samples in (m for m in search.min_samples if m <= lat.size):
        found = OPTICS(
            min_samples=min_samples,
            max_eps=search.max_eps_km / EARTH_RADIUS_KM,
            metric="haversine",
            algorithm="ball_tree",
            cluster_method="dbscan",  # the cheaper one: clusters are taken by xi below
        ).fit(radians)
        for xi in search.xi:
            with np.errstate(
                invalid="ignore", divide="ignore"
            ):  # it divides reachabilities, infinite and zero ones too
                labels, _ = cluster_optics_xi(
                    reachability=found.reachability_,
                    predecessor=found.predecessor_,
                    ordering=found.ordering_,
                    min_samples=min_samples,
                    xi=xi,
                )
            labels = labels.astype(np.int64)
            trial = {"min_samples": min_samples, "xi": xi, "clusters": int(labels.max()) + 1}
            trial["unassigned"] = int((labels < 0).sum())
            trials.append(trial)
            if not search.fewest <= trial["clusters"] <= search.most:
                continue
            labels = np.where(labels < 0, NearestCentroid(centroids(vectors, labels)).assign(vectors), labels)
            cells = np.unique(centroids(vectors, labels), axis=0)
            cell = NearestCentroid(cells).assign(vectors)
            if np.unique(cell[scored]).size < 2:
                continue
            trial["silhouette"] = float(silhouette_score(radians[scored], cell[scored], metric="haversine"))
            trial["davies_bouldin"] = float(davies_bouldin_score(vectors, cell))
            trial["result"] = len(results)
            results.append(cells)
    at = [trial for trial in trials if "result" in trial]
    if not at:
        return np.empty(0), np.empty(0), trials
    ranks = rankdata([-t["silhouette"] for t in at]) + rankdata([t["davies_bouldin"] for t in at])
    chosen = at[int(ranks.argmin())]
    cell_lat, cell_lon = lat_lon(results[chosen["result"]])
    for trial in at:
        trial["chosen"] = trial is chosen
        del trial["result"]
    order = np.argsort(s2.positions(s2.cell_ids(cell_lat, cell_lon)), kind="stable")
    return cell_lat[order], cell_lon[order], trials


def voronoi(vectors: F8, within: list[F8] | None = None) -> list[list[F8]]:
    """The Voronoi cell of each centroid, shape (n, 3), as convex pieces (m, 3), each inside one octant.

    `within`: pieces of a cell to which all are confined; the sphere if not given. Any number of centroids in any
    position, also one, or all on a great circle, for which a hull has no volume.
    """
    start = list(OCTANTS) if within is None else within
    cells = []
    for n, centroid in enumerate(vectors):
        nearer = centroid - np.delete(vectors, n, axis=0)
        nearer /= np.linalg.norm(nearer, axis=1, keepdims=True)  # else cells of a metre are lost in `clip`'s rounding
        pieces = (clip(piece, nearer) for piece in start)
        cells.append([piece for piece in pieces if piece is not None])
    return cells
