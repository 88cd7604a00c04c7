"""Atoms grouped by cell and profile, so that most of them need not be scored one by one.

The cell of an atom is its region of the member with the most regions. Its profile is the combination of its regions of
all other members; many cells share a profile. An atom's score is the score of its cell plus the score of its profile.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from geosieve.geo.arrays import F8, I8
from geosieve.geo.ranges import ranges

TIE = 1e-10
"""Scores (log densities) that differ by at most this are ties. Rounding errors are some 1e-14, 1e-12 at weight 10."""
LEAST_TOTAL = 1e-200
"""Sums of shifted terms below this may have lost terms that matter."""


@dataclass(frozen=True)
class Above:
    """The atoms that pass a limit, for each image.

    `whole`, shape (images, cells), marks cells of which all atoms pass. The passing atoms of other cells are listed as
    pairs (`image`, `atom`).
    """

    whole: NDArray[np.bool_]
    image: I8
    atom: I8


@dataclass(frozen=True)
class Structure:
    """Atoms by cell and profile. Areas are in km²."""

    base: int  # index of the member whose regions are the cells
    cell: I8  # (atoms,) column of the base member's factor
    profile: I8  # (atoms,) row of `profiles`
    profiles: I8  # (profiles, members - 1) columns of the other members' factors
    area: F8  # (atoms,)
    first: I8  # (cells + 1,) the atoms of cell c are order[first[c]:first[c + 1]]
    order: I8  # (atoms,)
    cell_area: F8  # (cells,)
    areas: csr_array  # (cells, profiles) area of each atom

    @classmethod
    def of(cls, area: F8, columns: list[I8]) -> Structure:
        """Build from the areas of atoms, (atoms,), and for each member its factor's column at every atom, (atoms,)."""
        base = int(np.argmax([c.max() for c in columns]))
        others = [c for k, c in enumerate(columns) if k != base]
        stacked = np.stack(others, axis=1) if others else np.zeros((area.size, 0), np.int64)
        profiles, profile = np.unique(stacked, axis=0, return_inverse=True)
        profile, cell = profile.ravel(), columns[base]
        order = np.argsort(cell, kind="stable")
        n = int(cell.max()) + 1
        first = np.searchsorted(cell[order], np.arange(n + 1))
        cell_area = np.bincount(cell, area, n).astype(np.float64)
        areas = csr_array((area, (cell, profile)), shape=(n, len(profiles)))
        return cls(base, cell, profile, profiles, area, first, order, cell_area, areas)

    def scores(self, factors: list[F8]) -> tuple[F8, F8]:
        """Scores s of cells, (images, cells), and v of profiles, (images, profiles), from the members' factors."""
        rest = [f for k, f in enumerate(factors) if k != self.base]
        v = np.zeros((len(factors[0]), len(self.profiles)))
        for f, columns in zip(rest, self.profiles.T, strict=True):
            v += f[:, columns]
        return factors[self.base][:, : self.cell_area.size], v

    def by_profile(self, exp_s: F8, exp_v: F8) -> F8:
        """Sums of exp(score) · area over the atoms of each profile, (images, profiles), from exp(s) and exp(v)."""
        return np.asarray((exp_s @ self.areas) * exp_v)

    def above(self, s: F8, v: F8, truth: I8, strictly: bool = False) -> Above:
        """Find the atoms that score at least as much as the true atom, or more than it with `strictly`.

        A cell whose best and worst profiles lie on the same side of the limit is decided as a whole; only the atoms of
        other cells are compared one by one. Scores within TIE of the true atom's score are equal to it. `truth`: the
        true atom of each image, (images,).
        """
        images = np.arange(truth.size)
        limit = _limit(s[images, self.cell[truth]] + v[images, self.profile[truth]], strictly)
        passes = np.greater if strictly else np.greater_equal
        # Floating-point sums are monotone in each term, so these bounds decide exactly as the scores of single atoms
        # would.
        whole = passes(s + v.min(axis=1, keepdims=True), limit[:, None])
        partly = passes(s + v.max(axis=1, keepdims=True), limit[:, None]) & ~whole
        pairs = np.flatnonzero(partly)  # flat indices are several times faster
        image, cell = np.divmod(pairs, s.shape[1])
        n = self.first[cell + 1] - self.first[cell]
        image, atom = np.repeat(image, n), self.order[ranges(self.first[cell], n)]
        score = np.repeat(s.ravel()[pairs], n) + v[image, self.profile[atom]]
        counted = passes(score, limit[image])
        return Above(whole, image[counted], atom[counted])

    def area_above(self, s: F8, v: F8, truth: I8) -> F8:
        """Area, km², of the atoms that score at least as much as the true atom, (images,)."""
        above = self.above(s, v, truth)
        return np.asarray(above.whole @ self.cell_area + np.bincount(above.image, self.area[above.atom], truth.size))

    def atoms_above(self, s: F8, v: F8, truth: I8) -> F8:
        """Number of the atoms that score at least as much as the true atom, (images,)."""
        above = self.above(s, v, truth)
        return np.asarray(above.whole @ np.diff(self.first) + np.bincount(above.image, minlength=truth.size))

    def mass_above(self, s: F8, v: F8, truth: I8, strictly: bool = False) -> F8:
        """Probability of the atoms that `above` finds, (images,): their share of the sum of exp(score) · area.

        NaN where no atom has a density above 0.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            # Shifted by the maximum, so that nothing overflows.
            s, v = s - s.max(axis=1, keepdims=True), v - v.max(axis=1, keepdims=True)
            above = self.above(s, v, truth, strictly)
            score = s[above.image, self.cell[above.atom]] + v[above.image, self.profile[above.atom]]
            single = np.bincount(above.image, np.exp(score) * self.area[above.atom], truth.size)
            exp_s, exp_v = np.exp(s), np.exp(v)
            mass = self.by_profile(np.where(above.whole, exp_s, 0.0), exp_v).sum(axis=1) + single
            total = self.by_profile(exp_s, exp_v).sum(axis=1)
            found = np.minimum(mass / total, 1.0)
            for i in np.flatnonzero(~(total > LEAST_TOTAL)):
                found[i] = self._mass_of_atoms(s[i], v[i], int(truth[i]), strictly)
            return np.asarray(found)

    def _mass_of_atoms(self, s: F8, v: F8, truth: int, strictly: bool) -> float:
        """`mass_above` of one image, atom by atom, shifted by the best atom.

        Needed where the best cell and the best profile exclude each other, so that the shifted sums underflow.
        """
        score = s[self.cell] + v[self.profile]
        mass = np.exp(score - score.max()) * self.area
        limit = _limit(score[truth], strictly)
        above = score > limit if strictly else score >= limit
        return float(mass[above].sum() / mass.sum())


def _limit(at_truth: F8, strictly: bool) -> F8:
    """Limit that scores must exceed (`strictly`: ties of the truth do not) or reach (ties of the truth do)."""
    return at_truth + TIE if strictly else at_truth - TIE


def merge_ties(scores: F8, order: I8) -> tuple[F8, I8]:
    """Give tied scores the same value, and sort tied atoms by their index.

    `scores`, shape (images, atoms), are in descending order; `order` has the atoms' indices. A sequence of scores with
    steps of at most TIE takes the value of its first, the greatest. Returns the new scores and order.
    """
    with np.errstate(invalid="ignore"):  # between scores of -inf
        gap = scores[:, :-1] - scores[:, 1:]
    rows = np.flatnonzero(((gap > 0) & (gap <= TIE)).any(axis=1))
    if not rows.size:
        return scores, order
    scores, order = scores.copy(), order.copy()
    begins = np.ones((rows.size, scores.shape[1]), bool)
    begins[:, 1:] = ~(gap[rows] <= TIE)
    first = np.maximum.accumulate(np.where(begins, np.arange(scores.shape[1]), 0), axis=1)
    by_atom = np.empty((rows.size, scores.shape[1]))
    np.put_along_axis(by_atom, order[rows], np.take_along_axis(scores[rows], first, axis=1), axis=1)
    order[rows] = np.argsort(-by_atom, axis=1, kind="stable")
    scores[rows] = np.take_along_axis(by_atom, order[rows], axis=1)
    return scores, order
