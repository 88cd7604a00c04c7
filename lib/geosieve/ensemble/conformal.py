"""Split conformal prediction: sets of atoms with a stated coverage, and the test of a claimed location.

If an image is exchangeable with the calibration images, its set contains the true atom with at least the stated
probability (Vovk, Gammerman, Shafer 2005; Angelopoulos, Bates 2023, theorem 1). With one threshold per stratum, this
holds within every stratum of true atoms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geosieve.ensemble.members import Ensemble, Predictions
from geosieve.ensemble.ranking import Ranking
from geosieve.geo.arrays import F8, I8

ROUNDING = 1e-9
"""Relative; sums of the same atoms in different orders differ in the last digits."""


def quantile(scores: ArrayLike, coverage: float) -> float:
    """The ⌈(n + 1) · coverage⌉-th smallest of the n calibration `scores`, or infinity if n is too small for it.

    A NaN score (no atom had a density) counts as infinite. ValueError unless 0 < coverage < 1.
    """
    if not 0 < coverage < 1:
        raise ValueError(f"a coverage is between 0 and 1, not {coverage}")
    ordered = np.sort(np.where(np.isnan(scores), np.inf, np.asarray(scores, dtype=np.float64)))
    # In floating point, 100 · 0.55 is 55.00000000000001, which must not be rounded up to 56.
    k = int(np.ceil(round((ordered.size + 1) * coverage, 9)))
    return float(ordered[k - 1]) if k <= ordered.size else np.inf


@dataclass(frozen=True)
class ConformalSets:
    """Thresholds that decide which atoms belong to an image's set: one per stratum of atoms, or one for all.

    An atom belongs to the set if the amount needed to reach it, from the densest atom on, is at most the threshold of
    its stratum. The amount is `counted` as probability (`Ensemble.credible_level`) or as area in km²
    (`Ensemble.area_to_truth_km2`). A stratum with too few calibration images for the coverage has an infinite
    threshold, so all of its atoms belong to every set.
    """

    coverage: float
    thresholds: F8  # (strata,), or (1,)
    stratum: I8 | None  # stratum of every atom, (atoms,)
    counted: Literal["mass", "area"] = "mass"

    @classmethod
    def marginal(cls, needed: ArrayLike, coverage: float, counted: Literal["mass", "area"] = "mass") -> ConformalSets:
        """One threshold for all atoms. `needed`, (n,): the amounts needed to reach the calibration images' true atoms.

        ValueError unless 0 < coverage < 1.
        """
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
        """One threshold per stratum of the true atoms.

        `needed` and `truth`, (n,): the amount needed to reach each calibration image's true atom, and this atom.
        `stratum`, (atoms,): stratum of every atom, from 0 on, or -1 for none. ValueError unless 0 < coverage < 1.
        """
        needed, mine = np.asarray(needed, dtype=np.float64), stratum[np.asarray(truth)]
        thresholds = [quantile(needed[mine == k], coverage) for k in range(int(stratum.max()) + 1)]
        # Atoms without a stratum form one more stratum, the last.
        thresholds.append(quantile(needed[mine < 0], coverage))
        return cls(coverage, np.array(thresholds), np.where(stratum < 0, len(thresholds) - 1, stratum), counted)

    def holds(self, ranking: Ranking) -> NDArray[np.bool_]:
        """Which atoms of a ranking belong to its images' sets, (images, atoms), in the order of the ranking."""
        needed = mass_at(ranking) if self.counted == "mass" else area_at(ranking)
        # NaN, where no atom has a density, excludes nothing.
        return np.asarray(~(needed > self.limits(ranking.atom)))

    def covers(self, needed: ArrayLike, truth: ArrayLike) -> NDArray[np.bool_]:
        """Whether the images' sets contain the true atoms `truth`, (images,), without ranking all atoms.

        `needed`: the amount needed to reach each image's true atom; NaN counts as contained.
        """
        return np.asarray(~(np.asarray(needed) > self.limits(np.asarray(truth))))

    def limits(self, atom: I8) -> F8:
        """Threshold of each atom, with a tolerance for rounding errors; one number if all have the same."""
        limits = self.thresholds * (1 + ROUNDING)
        return np.asarray(limits[0] if self.stratum is None else limits[self.stratum[atom]])


def mass_at(ranking: Ranking) -> F8:
    """Probability of all atoms at least as dense as each atom, ties included: (images, atoms), in ranking order."""
    return at_last_tie(ranking.log_density, np.minimum(np.cumsum(ranking.probability, axis=1), 1.0))


def area_at(ranking: Ranking) -> F8:
    """Area, km², of all atoms at least as dense as each atom, ties included: (images, atoms), in ranking order."""
    return at_last_tie(ranking.log_density, np.cumsum(ranking.area_km2, axis=1))


def at_last_tie(log_density: F8, held: F8) -> F8:
    """The cumulative sums `held` at the last atom of the same density as each atom; both (…, atoms), by rank."""
    # Where no atom has a density, all atoms are ties.
    density = np.nan_to_num(log_density, nan=-np.inf, neginf=-np.inf)
    last = np.ones(density.shape, dtype=bool)  # whether an atom is the last of its ties
    last[..., :-1] = density[..., :-1] != density[..., 1:]
    # Sums increase, so the minimum over all "last ties" from an atom on is the sum at its own last tie.
    at_last = np.where(last, held, np.inf)
    return np.asarray(np.minimum.accumulate(at_last[..., ::-1], axis=-1)[..., ::-1])


@dataclass(frozen=True)
class Claim:
    """How well claimed locations fit their images, arrays (images,).

    `p_value`: share of the calibration images, the claim itself included, whose true atom needed at least as much
    probability as the claimed atom. For a true claim, the p-value is at most a with probability at most a. `rank` and
    `area_km2`: number and area of the atoms at least as dense as the claimed atom, ties included.
    """

    p_value: F8
    rank: I8
    area_km2: F8


def check_claims(ensemble: Ensemble, predictions: Predictions, claimed: ArrayLike, calibration: ArrayLike) -> Claim:
    """Test claimed locations.

    `claimed`, (images,): atoms of the claimed locations. `calibration`, (n,): `Ensemble.credible_level` of calibration
    images at their true atoms; NaN counts as infinite. InputError as in `Ensemble.matched`.
    """
    known = np.sort(np.where(np.isnan(calibration), np.inf, np.asarray(calibration, dtype=np.float64)))
    needed = ensemble.credible_level(predictions, claimed)
    # Where no atom has a density, nothing contradicts the claim: its p-value is 1.
    least = np.where(np.isnan(needed), -np.inf, needed * (1 - ROUNDING))
    as_bad = known.size - np.searchsorted(known, least, side="left")
    return Claim(
        (1 + as_bad) / (known.size + 1),
        ensemble.ranks(predictions, claimed),
        ensemble.area_to_truth_km2(predictions, claimed),
    )
