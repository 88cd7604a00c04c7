"""Rank the atoms of an overlay for each image, and summarise a ranking.

Summaries are the leading atoms within a budget of area or for a share of the probability, best points, and entropy.
Atoms can also be grouped into regions of a minimum area, so that an answer is no more precise than these regions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.spatial import cKDTree

from geosieve.ensemble.members import Ensemble, Predictions
from geosieve.ensemble.structure import TIE, merge_ties
from geosieve.geo import s2
from geosieve.geo.arrays import F8, I8
from geosieve.geo.outlines import lat_lon, unit_vectors
from geosieve.geo.sphere import EARTH_RADIUS_KM
from geosieve.overlay.atoms import Overlay
from geosieve.runtime.identity import content_digest

_ATOMS_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class Ranking:
    """The atoms of each image in descending order of density, ties in order of their index; arrays (images, atoms).

    `atom` has the atoms' indices. `probability` sums to 1 along a row. It is NaN along the whole row if the members
    exclude each other everywhere, so that no atom has a density.
    """

    overlay: Overlay
    atom: I8
    probability: F8
    log_density: F8  # natural logarithm of the probability per km²

    @cached_property
    def area_km2(self) -> F8:
        """Area of the atoms, km², (images, atoms)."""
        return np.asarray(self.overlay.area_km2[self.atom])

    def within_area(self, budget_km2: float) -> I8:
        """Number of leading atoms that fit into an area of `budget_km2`, (images,)."""
        return np.asarray((np.cumsum(self.area_km2, axis=1) <= budget_km2).sum(axis=1), dtype=np.int64)

    def within_mass(self, share: float) -> I8:
        """Number of leading atoms needed for at least `share` of the probability, (images,)."""
        held = np.cumsum(self.probability, axis=1)
        # Rounding may leave the last sum below `share`: then all atoms with a probability above 0.
        return np.asarray(
            np.minimum((held < share).sum(axis=1) + 1, (self.probability > 0).sum(axis=1)), dtype=np.int64
        )

    def best_point(self) -> tuple[F8, F8]:
        """(lat, lon), degrees, (images,), of the centroid of the densest atom; NaN where no atom has a density."""
        nowhere = np.isnan(self.probability[:, 0])
        lat, lon = (np.where(nowhere, np.nan, of[self.atom[:, 0]]) for of in (self.overlay.lat, self.overlay.lon))
        return lat, lon

    def expected_distance_point(self, candidates: int = 128) -> tuple[F8, F8, F8]:
        """(lat, lon, km), each (images,): the point with the least expected great-circle distance, and this distance.

        Only the centroids of the `candidates` most probable atoms are considered, as points and as places of the truth;
        their probabilities are normalised. NaN where no atom has a density.
        """
        found = np.full((len(self.atom), 3), np.nan)
        k = min(candidates, self.atom.shape[1])
        for i, (atom, p) in enumerate(zip(self.atom, self.probability, strict=True)):
            if not np.isnan(p[0]):
                top = np.argpartition(-p, k - 1)[:k]
                found[i] = expected_point(self.overlay.lat[atom[top]], self.overlay.lon[atom[top]], p[top])
        lat, lon, km = found.T
        return lat, lon, km

    def entropy(self) -> F8:
        """Differential entropy -∫ ρ ln ρ dA in nats, (images,). Its exponential is an effective area in km²."""
        with np.errstate(invalid="ignore"):
            parts = np.where(self.probability == 0, 0.0, self.probability * self.log_density)
        return np.asarray(-parts.sum(axis=1))


def expected_point(lat: F8, lon: F8, weights: F8) -> tuple[float, float, float]:
    """(lat, lon, km): which of some points has the least expected great-circle distance, and this distance.

    `lat` and `lon`, degrees, and `weights`, not normalised, are of the points as places of the truth; all (n,).
    """
    points = unit_vectors(lat, lon)
    # From the chord, by one product of matrices: four times as fast as haversines, and right to 0.1 m.
    angle = 2 * np.arcsin(np.sqrt(np.clip(0.5 - 0.5 * (points @ points.T), 0.0, 1.0)))
    expected = EARTH_RADIUS_KM * angle @ (weights / weights.sum())
    best = int(np.argmin(expected))
    return float(lat[best]), float(lon[best]), float(expected[best])


def rank(ensemble: Ensemble, predictions: Predictions, device: str | None = None) -> Iterator[Ranking]:
    """Rank all atoms for all images. Yields a Ranking per chunk of images, in order, so that memory stays bounded.

    With `device` (e.g. "cuda") torch does the work, else numpy. Both give the same order; probabilities may differ by
    rounding. InputError as in `Ensemble.factors`; ImportError if `device` is given and torch is missing.
    """
    factors = ensemble.factors(predictions)
    step = max(1, _ATOMS_AT_ONCE // ensemble.overlay.n_atoms)
    for start in range(0, factors.images, step):
        chunk = factors[start : start + step]
        yield _by_numpy(ensemble, chunk) if device is None else _by_torch(ensemble, chunk, device)


def _by_numpy(ensemble: Ensemble, factors: list[F8]) -> Ranking:
    """Ranking of one chunk of images."""
    scores, area = ensemble.gather(factors), ensemble.overlay.area_km2
    order = np.argsort(-scores, axis=1, kind="stable")
    scores, order = merge_ties(np.take_along_axis(scores, order, axis=1), order)
    with np.errstate(invalid="ignore"):
        scores = scores - scores[:, :1]
        total = (np.exp(scores) * area[order]).sum(axis=1, keepdims=True)
        log_density = scores - np.log(total)
        return Ranking(ensemble.overlay, order, np.exp(log_density) * area[order], log_density)


def _by_torch(ensemble: Ensemble, factors: list[F8], device: str) -> Ranking:
    """The same on a torch device."""
    import torch

    area = torch.from_numpy(ensemble.overlay.area_km2).to(device)
    parts = [
        torch.from_numpy(np.ascontiguousarray(f)).to(device)[:, torch.from_numpy(columns).to(device)]
        for f, columns in zip(factors, ensemble.columns, strict=True)
    ]
    scores, order = torch.sort(sum(parts[1:], start=parts[0]), dim=1, descending=True, stable=True)
    gap = scores[:, :-1] - scores[:, 1:]
    if ((gap > 0) & (gap <= TIE)).any():
        merged = merge_ties(scores.cpu().numpy(), order.cpu().numpy())
        scores, order = (torch.from_numpy(of).to(device) for of in merged)
    scores = scores - scores[:, :1]
    log_density = scores - torch.log((scores.exp() * area[order]).sum(dim=1, keepdim=True))
    probability = log_density.exp() * area[order]
    return Ranking(ensemble.overlay, *(found.cpu().numpy() for found in (order, probability, log_density)))


def coarse_regions(overlay: Overlay, least_km2: float) -> I8:
    """Group atoms into regions of at least `least_km2` each. Returns the region index of each atom, (atoms,).

    An atom that is large enough is a region of its own. The others are grouped by the S2 cell of their centroid, from
    level 30 up to level 0; as soon as the ungrouped atoms in a cell are large enough together, they become a region.
    Atoms that are left over at the end join the nearest region; without any region, all atoms form one. Regions do not
    depend on images, so that a coarsened answer reveals no more than its regions. ValueError if the overlay is smaller
    than `least_km2`.
    """
    if overlay.area_km2.sum() < least_km2:
        raise ValueError(f"the overlay has {overlay.area_km2.sum():.0f} km2, less than a region of {least_km2:.0f} km2")
    region = np.full(overlay.n_atoms, -1, dtype=np.int64)
    large = overlay.area_km2 >= least_km2
    found = int(large.sum())
    region[large] = np.arange(found)
    leaves = s2.cell_ids(overlay.lat, overlay.lon)
    for level in range(s2.MAX_LEVEL, -1, -1):
        left = np.flatnonzero(region < 0)
        _, cell = np.unique(s2.parents(leaves[left], level), return_inverse=True)
        enough = np.bincount(cell, overlay.area_km2[left]) >= least_km2
        number = found + np.cumsum(enough) - 1
        region[left[enough[cell]]] = number[cell[enough[cell]]]
        found += int(enough.sum())
    if found == 0:
        return np.zeros_like(region)
    left, placed = np.flatnonzero(region < 0), np.flatnonzero(region >= 0)
    if left.size:
        vectors = unit_vectors(overlay.lat, overlay.lon)
        _, nearest = cKDTree(vectors[placed]).query(vectors[left])
        region[left] = region[placed[nearest]]
    return region


def coarse_overlay(of: Overlay, region: I8) -> Overlay:
    """The overlay whose atoms are regions of another, and which has no partitions.

    `region`, (atoms,): region index of each atom, as from `coarse_regions`. The hash covers that of the original
    overlay and `region`.
    """
    n = int(region.max()) + 1
    area = np.bincount(region, of.area_km2, n).astype(np.float64)
    moments = unit_vectors(of.lat, of.lon) * of.area_km2[:, None]
    lat, lon = lat_lon(np.stack([np.bincount(region, part, n) for part in moments.T], axis=-1))
    land = np.bincount(region, of.land_share * of.area_km2, n) / area
    digest = content_digest("coarse_overlay", 1, {"overlay": of.digest, "regions": region.astype("<i8").tobytes()})
    return Overlay((), np.empty((n, 0), dtype=np.int64), area, lat, lon, land, digest)


def coarsen(ranking: Ranking, region: I8, overlay: Overlay | None = None) -> Ranking:
    """Turn a ranking of atoms into a ranking of regions, whose probabilities are the sums over their atoms.

    `region`, (atoms,): region index of each atom. `overlay`: what `coarse_overlay` makes of it, if that is there.
    """
    overlay = coarse_overlay(ranking.overlay, region) if overlay is None else overlay
    n, area = overlay.n_atoms, overlay.area_km2
    probability = np.stack(
        [np.bincount(region[a], p, n) for a, p in zip(ranking.atom, ranking.probability, strict=True)]
    ).astype(np.float64)
    with np.errstate(divide="ignore"):
        density = np.log(probability) - np.log(area)
    order = np.argsort(-density, axis=1, kind="stable")
    log_density, order = merge_ties(np.take_along_axis(density, order, axis=1), order)
    return Ranking(overlay, order, np.take_along_axis(probability, order, axis=1), log_density)
