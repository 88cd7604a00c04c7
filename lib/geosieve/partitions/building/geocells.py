"""Geocells: OPTICS clusters of images, and the spherical Voronoi cells of their centroids.

The method follows the Stanford report and PIGEON (Haas et al. 2023):

1. Cluster the images by OPTICS with great-circle distances.
2. Assign the images without a cluster to the nearest centroid, and compute the centroids again, on the sphere.
3. Choose the parameters of OPTICS by the silhouette and Davies-Bouldin scores of the result.
4. Take the Voronoi cells of the centroids. Each cell can be clustered again inside.
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

_SCORED = 5_000  # sample size for the silhouette, which needs all pairwise distances
_SEED = 0
_TIES = 8  # more centroids at the same distance from a point occur only in constructed data


@dataclass(frozen=True)
class Search:
    """OPTICS parameters to try: every pair of `min_samples` and `xi`, with neighbours up to `max_eps_km` away.

    A result is accepted if it has `fewest` to `most` clusters.
    """

    min_samples: tuple[int, ...]
    xi: tuple[float, ...]
    max_eps_km: float
    fewest: int
    most: int


@dataclass(frozen=True)
class NearestCentroid:
    """Spherical Voronoi cells: a point belongs to the nearest centroid, or to the first of several equally near ones.

    vectors: the centroids as unit vectors, shape (n, 3).
    parents: the cell of a coarser partition that contains each centroid, shape (n,). A point then belongs to the
        nearest of the centroids in its own coarse cell. None without a coarser partition.
    """

    vectors: F8
    parents: I8 | None = None

    @cached_property
    def _tree(self) -> cKDTree:
        return cKDTree(_apart(self.vectors, self.parents))

    def assign(self, points: F8, cells: I8 | None = None) -> I8:
        """Return the index of the nearest centroid of each point, shape (m,).

        points: unit vectors, shape (m, 3).
        cells: the coarse cell of each point, shape (m,); needed if there are `parents`.
        """
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
    """Add a fourth coordinate, 4 · cell: points in different cells are then further apart than any two in one cell."""
    return vectors if cells is None else np.column_stack([vectors, 4.0 * cells])


def centroids(vectors: F8, labels: I8) -> F8:
    """Return the mean direction, a unit vector, of the vectors with each label: shape (labels, 3).

    vectors: unit vectors, shape (n, 3).
    labels: 0, 1, …, shape (n,). Vectors with a negative label are ignored.
    """
    n = int(labels.max()) + 1
    has = labels >= 0
    sums = np.column_stack([np.bincount(labels[has], column[has], n) for column in vectors.T])
    return np.asarray(sums / np.linalg.norm(sums, axis=1, keepdims=True))


def find_cells(lat: F8, lon: F8, search: Search) -> tuple[F8, F8, list[dict[str, Any]]]:
    """Try the parameters of `search` and return the best clustering of points (degrees, shape (n,)).

    Returns the lat and lon of its centroids, in degrees and in the order of S2 ids, and one entry per trial for the
    report. There are no centroids if no clustering has an accepted number of clusters.

    Each accepted clustering is ranked by its silhouette score (haversine distance, on a sample; high is good) and by
    its Davies-Bouldin score (chord distance; low is good). Scores are those of the Voronoi cells with all their points.
    The best clustering has the smallest sum of the two ranks; of equal ones the first tried is taken.
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
            cluster_method="dbscan",  # cheap; its clusters are not used, because they are extracted by xi below
        ).fit(radians)
        for xi in search.xi:
            with np.errstate(
                invalid="ignore", divide="ignore"
            ):  # cluster_optics_xi divides reachabilities, some of which are infinite or zero
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
    """Return the Voronoi cell of each centroid as a list of convex pieces, each inside one octant.

    vectors: the centroids as unit vectors, shape (n, 3), n ≥ 1, no two equal.
    within: pieces of the cell to which the Voronoi cells are clipped; the whole sphere if not given.

    A piece is an array of the unit vectors of its vertices, shape (m, 3). Unlike methods that use the convex hull, this
    also works for a single centroid and for centroids on one great circle.
    """
    start = list(OCTANTS) if within is None else within
    cells = []
    for n, centroid in enumerate(vectors):
        nearer = centroid - np.delete(vectors, n, axis=0)
        nearer /= np.linalg.norm(nearer, axis=1, keepdims=True)  # otherwise `clip` rounds away cells of a metre
        pieces = (clip(piece, nearer) for piece in start)
        cells.append([piece for piece in pieces if piece is not None])
    return cells
