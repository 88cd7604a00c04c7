"""Region sets with a stated coverage, and the test of a claimed location (split conformal prediction).

For images exchangeable with the calibration images the set holds the truth with at least the stated probability (Vovk,
Gammerman, Shafer 2005; Angelopoulos, Bates 2023, theorem 1); by stratum it does so within every stratum of the truth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geosieve.ensemble.members import Ensemble, Predictions
from geosieve.ensemble.ranking import Ranking
from geosieve.geo.arrays import F8, I8

_ROUNDING = 1e-9  # sums of one set of atoms in different orders differ in the last digits: those within this are equal


def quantile(scores: ArrayLike, coverage: float) -> float:
    """The ⌈(n + 1) · coverage⌉-th smallest of n calibration scores; infinite if n is too small for the coverage.

    A score that is NaN (nothing was predicted) counts as the greatest. ValueError unless 0 < coverage < 1.
    """
    if not 0 < coverage < 1:
        raise ValueError(f"a coverage is between 0 and 1, not {coverage}")
    ordered = np.sort(np.where(np.isnan(scores), np.inf, np.asarray(scores, dtype=np.float64)))
    # 0.9 · 10 is 9.000000000000002 in floating point, which must not be rounded up.
    k = int(np.ceil(round((ordered.size + 1) * coverage, 9)))
    return float(ordered[k - 1]) if k <= ordered.size else np.inf


@dataclass(frozen=True)
class ConformalSets:
    """Thresholds on what it takes to reach an atom, one for each stratum (a column of the overlay) or one for all.

    What it takes is counted in probability (`Ensemble.credible_level`) or in area (`Ensemble.area_to_truth_km2`). A
    stratum without calibration images has an infinite threshold: all its atoms belong to every set.
    """

    coverage: float
    thresholds: F8  # (strata,), or (1,)
    stratum: I8 | None  # stratum of every atom, (atoms,)
    counted: Literal["mass", "area"] = "mass"

    @classmethod
    def marginal(cls, needed: ArrayLike, coverage: float, counted: Literal["mass", "area"] = "mass") -> ConformalSets:
        """From what the calibration images needed to reach their truth."""
        return cls(coverage, np.array([quantile(needed, coverage)]), None, counted)

    @classmethod
    def by_stratum(
        cls,
        needed: ArrayLike,
        truth: ArrayLike,
        stratum: I8,
        coverage: float,
        counted: Literal["mass", "area"] = "mass",
    ) -> ConformalSets:
        """One threshold for each stratum of the true atoms; `stratum` (atoms,), from 0 on, -1 for none."""
        needed, mine = np.asarray(needed, dtype=np.float64), stratum[np.asarray(truth)]
        thresholds = [quantile(needed[mine == k], coverage) for k in range(int(stratum.max()) + 1)]
        # Atoms of no stratum are a stratum of their own, the last.
        thresholds.append(quantile(needed[mine < 0], coverage))
        return cls(coverage, np.array(thresholds), np.where(stratum < 0, len(thresholds) - 1, stratum), counted)

    def holds(self, ranking: Ranking) -> NDArray[np.bool_]:
        """Which atoms of a ranking belong to the images' sets, (images, atoms), in the ranking's order."""
        needed = mass_at(ranking) if self.counted == "mass" else area_at(ranking)
        # A probability that is NaN, where nothing is possible, excludes nothing.
        return np.asarray(~(needed > self._limits(ranking.atom)))

    def covers(self, needed: ArrayLike, truth: ArrayLike) -> NDArray[np.bool_]:
        """Whether the images' sets hold their truth, (images,), by what they need, without ranking all atoms."""
        return np.asarray(~(np.asarray(needed) > self._limits(np.asarray(truth))))

    def _limits(self, atom: I8) -> F8:
        limits = self.thresholds * (1 + _ROUNDING)
        return np.asarray(limits[0] if self.stratum is None else limits[self.stratum[atom]])


def mass_at(ranking: Ranking) -> F8:
    """Probability of all atoms at least as dense as each one, (images, atoms) in the ranking's order: ties count."""
    return _at_last_tie(ranking, np.minimum(np.cumsum(ranking.probability, axis=1), 1.0))


def area_at(ranking: Ranking) -> F8:
    """Area, km², of all atoms at least as dense as each one, (images, atoms) in the ranking's order: ties count."""
    return _at_last_tie(ranking, np.cumsum(ranking.area_km2, axis=1))


def _at_last_tie(ranking: Ranking, held: F8) -> F8:
    # Where nothing is possible all are as dense as each other.
    density = np.nan_to_num(ranking.log_density, nan=-np.inf, neginf=-np.inf)
    last = np.ones(density.shape, dtype=bool)  # of its ties
    last[:, :-1] = density[:, :-1] != density[:, 1:]
    # Each atom takes the sum at the last of its ties: the least of the sums at such places from it on.
    at_last = np.where(last, held, np.inf)
    return np.asarray(np.minimum.accumulate(at_last[:, ::-1], axis=1)[:, ::-1])


@dataclass(frozen=True)
class Claim:
    """How well claimed locations fit the images: p-value, rank of the claim's atom, and the area that it takes, km².

    The p-value is the share of calibration images (and the claim itself) whose truth needed at least as much
    probability; a true claim has a p-value of at most a with probability at most a.
    """

    p_value: F8
    rank: I8
    area_km2: F8


def check_claims(ensemble: Ensemble, predictions: Predictions, claimed: ArrayLike, calibration: ArrayLike) -> Claim:
    """Test claimed atoms, (images,), against the `calibration` images' mass needed to reach their truth."""
    known = np.sort(np.where(np.isnan(calibration), np.inf, np.asarray(calibration, dtype=np.float64)))
    needed = ensemble.credible_level(predictions, claimed)
    # Without a prediction nothing speaks against the claim.
    least = np.where(np.isnan(needed), -np.inf, needed * (1 - _ROUNDING))
    as_bad = known.size - np.searchsorted(known, least, side="left")
    return Claim(
        (1 + as_bad) / (known.size + 1),
        ensemble.ranks(predictions, claimed),
        ensemble.area_to_truth_km2(predictions, claimed),
    )
