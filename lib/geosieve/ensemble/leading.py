"""The leading atoms of each image, without a score for every atom.

A few cells, the best of the member with the most regions, hold some of the leading atoms. From these follows a score
that the last atom of the answer has at least. An atom can have it only if its cell has, with the best profile: these
cells are looked at, and what they hold above this score is sorted. Order, ties and probabilities are those of
`ranking.rank`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from geosieve.ensemble.conformal import at_last_tie
from geosieve.ensemble.members import Ensemble, Predictions
from geosieve.ensemble.ranking import expected_point
from geosieve.ensemble.structure import LEAST_TOTAL, TIE, Structure, merge_ties
from geosieve.geo.arrays import F8, I8
from geosieve.geo.ranges import ranges

_STEPS, _LAST = 8, 511
"""Scores are counted in steps of 1/8 from the greatest one down; what lies further down than the last step is in it."""


@dataclass(frozen=True)
class Leading:
    """The first atoms of one image's ranking, in its order, ties complete; arrays (n,).

    `complete`: all atoms were looked at, so every one with a density above 0 is there. Without any such atom, there are
    none.
    """

    atom: I8
    probability: F8
    log_density: F8  # natural logarithm of the probability per km²
    area_km2: F8
    complete: bool

    def within_mass(self, share: float) -> int:
        """Number of atoms needed for at least `share` of the probability. All, if they hold less."""
        return min(int((np.cumsum(self.probability) < share).sum()) + 1, int((self.probability > 0).sum()))

    def within_area(self, budget_km2: float) -> int:
        """Number of atoms that fit into an area of `budget_km2`."""
        return int((np.cumsum(self.area_km2) <= budget_km2).sum())

    def mass_at(self) -> F8:
        """Probability of all atoms at least as dense as each atom, ties included, (n,)."""
        return at_last_tie(self.log_density, np.minimum(np.cumsum(self.probability), 1.0))


@dataclass(frozen=True)
class ScoredImages:
    """Images, and the scores of their cells and profiles.

    `exp_s` and `exp_v`: exp(s) and exp(v), shifted by their greatest values. `log_total`, (images,): logarithm of the
    sum over atoms of exp(score) · area; NaN if no atom has a density.
    """

    ensemble: Ensemble
    s: F8  # (images, cells)
    v: F8  # (images, profiles)
    exp_s: F8
    exp_v: F8
    log_total: F8

    def leading(self, image: int, mass: float = 0.0, area_km2: float = 0.0, regions: int = 0) -> Leading:
        """At least as many leading atoms as hold `mass`, exceed `area_km2`, and are `regions`."""
        structure, s, v, total = self.ensemble.structure, self.s[image], self.v[image], float(self.log_total[image])
        depth = _steps(s)
        # Somewhat more than is needed, as cells also hold atoms of little density. Of the mass, the base tells much.
        deepest = 0
        if mass > 0:
            base = self.exp_s[image] * structure.cell_area
            deepest = _step_of(depth, base, base.sum() * (1 + mass) / 2)
        if area_km2 > 0 or regions > 0:
            deepest = max(deepest, _step_of(depth, structure.cell_area, 2 * area_km2))
            deepest = max(deepest, _step_of(depth, np.diff(structure.first), 2 * regions))
        while True:
            atom = _atoms(structure, np.flatnonzero(depth <= deepest))
            score = s[structure.cell[atom]] + v[structure.profile[atom]]
            area, below = structure.area[atom], _steps(score)
            step = _step_of(below, np.exp(score - total) * area, mass)
            step = max(step, _step_of(below, area, area_km2), _step_of(below, np.ones(atom.size), regions))
            if step < _LAST or deepest >= _LAST:
                break
            deepest = 4 * deepest + _STEPS
        bound = float(score.max()) - (step + 1) / _STEPS - TIE if step < _LAST else -np.inf
        found = _above(structure, s, v, bound, total)
        enough = (
            found.probability.sum() >= mass and found.area_km2.sum() > area_km2 and len(found.atom) >= regions
        )  # but for rounding at the edge of a step, and for ties
        return found if enough or found.complete else _above(structure, s, v, -np.inf, total)

    @cached_property
    def _masses(self) -> tuple[F8, F8]:
        """Probability of each cell, (images, cells), and entropy, (images,)."""
        structure, v, exp_v = self.ensemble.structure, self.v, self.exp_v
        with np.errstate(invalid="ignore", divide="ignore"):
            both = structure.areas @ np.concatenate([exp_v, exp_v * np.where(exp_v > 0, v, 0.0)]).T
            by_cell, by_score = self.exp_s * both[:, : len(v)].T, self.exp_s * both[:, len(v) :].T
            by_score += by_cell * np.where(self.exp_s > 0, self.s, 0.0)
            total = by_cell.sum(axis=1, keepdims=True)
            entropy = self.log_total - by_score.sum(axis=1) / total[:, 0]
            mass = by_cell / total
        for i in np.flatnonzero(~(total[:, 0] > LEAST_TOTAL)):
            score = self._scores(i)
            p = np.nan_to_num(np.exp(score - self.log_total[i]) * structure.area)
            entropy[i] = self.log_total[i] - (p * np.where(p > 0, score, 0.0)).sum()
            mass[i] = np.bincount(structure.cell, p, mass.shape[1])
        return mass, entropy

    @property
    def cell_mass(self) -> F8:
        """Probability of each cell, (images, cells); 0 where no atom has a density."""
        return self._masses[0]

    @property
    def entropy(self) -> F8:
        """As `Ranking.entropy`, (images,)."""
        return self._masses[1]

    def _scores(self, image: int) -> F8:
        """Scores of all atoms, (atoms,)."""
        structure = self.ensemble.structure
        return np.asarray(self.s[image, structure.cell] + self.v[image, structure.profile])

    def best_point(self, image: int, candidates: int = 128) -> tuple[float, float, float]:
        """(lat, lon, km): the point with the least expected distance, as `Ranking.expected_distance_point` finds it."""
        structure, overlay, mass = self.ensemble.structure, self.ensemble.overlay, self.cell_mass[image]
        if np.isnan(self.log_total[image]):
            return np.nan, np.nan, np.nan
        cells = wanted = min(candidates, overlay.n_atoms)
        while True:
            # An atom has at most the probability of its cell.
            limit = np.partition(mass, -cells)[-cells] if cells < mass.size else 0.0
            atom = _atoms(structure, np.flatnonzero(mass >= limit))
            score = self.s[image, structure.cell[atom]] + self.v[image, structure.profile[atom]]
            p = np.exp(score - self.log_total[image]) * structure.area[atom]
            if cells >= mass.size or np.count_nonzero(p >= limit) >= wanted:
                break
            cells *= 4
        k = min(wanted, p.size)
        top = np.argpartition(-p, k - 1)[:k]
        return expected_point(overlay.lat[atom[top]], overlay.lon[atom[top]], p[top])


def scored(ensemble: Ensemble, predictions: Predictions) -> Iterator[ScoredImages]:
    """Score images, in chunks, in their order, so that memory stays bounded. InputError as in `Ensemble.factors`."""
    factors = ensemble.factors(predictions)
    for images in ensemble.chunks(factors.images):
        yield _scored(ensemble, *ensemble.structure.scores(factors[images]))


def _scored(ensemble: Ensemble, s: F8, v: F8) -> ScoredImages:
    structure = ensemble.structure
    with np.errstate(invalid="ignore", divide="ignore"):
        top_s, top_v = s.max(axis=1, keepdims=True), v.max(axis=1, keepdims=True)
        exp_s, exp_v = np.exp(s - top_s), np.exp(v - top_v)
        total = structure.by_profile(exp_s, exp_v).sum(axis=1)
        found = ScoredImages(ensemble, s, v, np.nan_to_num(exp_s), exp_v, np.log(total) + top_s[:, 0] + top_v[:, 0])
        for i in np.flatnonzero(~(total > LEAST_TOTAL)):
            # The best cell and the best profile exclude each other: shifted by their scores, all terms may be 0.
            score = found._scores(i)
            top = score.max()
            found.log_total[i] = top + np.log((np.exp(score - top) * structure.area).sum())  # NaN if top is -inf
    return found


def _steps(score: F8) -> I8:
    """How many steps each score lies below the greatest one, (n,)."""
    with np.errstate(invalid="ignore"):
        depth = (score.max(initial=-np.inf) - score) * _STEPS
    return np.asarray(np.fmin(depth, _LAST, out=depth).astype(np.int64))  # of NaN, where all are -inf, the last


def _step_of(depth: I8, weights: F8 | I8, need: float) -> int:
    """The first step at which the weights of all scores from the top down are at least `need`, or the last."""
    if need <= 0:
        return 0
    return min(int(np.searchsorted(np.cumsum(np.bincount(depth, weights, _LAST + 1)), need)), _LAST)


def _atoms(structure: Structure, cells: I8) -> I8:
    """The atoms of some cells."""
    first = structure.first[cells]
    return structure.order[ranges(first, structure.first[cells + 1] - first)]


def _above(structure: Structure, s: F8, v: F8, bound: float, log_total: float) -> Leading:
    """The atoms that score at least `bound`, but for the last if they may have ties below it."""
    everything = bound == -np.inf
    bound = max(bound, float(np.finfo(np.float64).min))  # -inf is no density
    atom = _atoms(structure, np.flatnonzero(s + v.max() >= bound))
    score = s[structure.cell[atom]] + v[structure.profile[atom]]
    held = np.flatnonzero(score >= bound)
    atom, score = atom[held], score[held]
    order, n = np.argsort(-score), atom.size
    goes_on = n > 0 and score[order[-1]] <= bound + TIE
    if goes_on or (np.diff(score[order]) >= -TIE).any():  # there are ties, which are in the order of atoms
        by_atom = np.argsort(atom)
        atom, score = atom[by_atom], score[by_atom]
        order = np.argsort(-score, kind="stable")
        (score,), (order,) = merge_ties(score[order][None], order[None])
        if goes_on:
            n = int(np.searchsorted(-score, -score[-1]))
    else:
        score = score[order]
    atom, score = atom[order[:n]], score[:n]
    log_density, area = score - log_total, structure.area[atom]
    return Leading(atom, np.exp(log_density) * area, log_density, area, everything)
