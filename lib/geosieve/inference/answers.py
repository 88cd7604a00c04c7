"""From scored images to what is told of each: the regions of its answer, and a summary."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from geosieve.ensemble.conformal import ROUNDING, ConformalSets
from geosieve.ensemble.leading import Leading, scored
from geosieve.ensemble.members import Ensemble, Predictions
from geosieve.ensemble.ranking import Ranking, coarse_overlay, coarse_regions, coarsen, rank
from geosieve.geo.arrays import F8, I8
from geosieve.overlay.atoms import Overlay

_SHARES = (0.5, 0.9)
"""Of the probability, whose areas a summary tells."""


class Images(Protocol):
    """Some images, whose leading regions can be asked for."""

    @property
    def entropy(self) -> F8:
        """Differential entropy in nats, (images,)."""

    def leading(self, image: int, mass: float = 0.0, area_km2: float = 0.0, regions: int = 0) -> Leading:
        """At least as many leading regions as hold `mass`, exceed `area_km2`, and are `regions`."""

    def best_point(self, image: int) -> tuple[float, float, float]:
        """(lat, lon, km): the point with the least expected distance."""


@dataclass(frozen=True)
class CoarseImages:
    """Images ranked over regions that are made of atoms, so that nothing finer is told."""

    ranking: Ranking

    @cached_property
    def entropy(self) -> F8:
        """As `Ranking.entropy`, (images,)."""
        return self.ranking.entropy()

    def leading(self, image: int, mass: float = 0.0, area_km2: float = 0.0, regions: int = 0) -> Leading:
        """All regions with a density above 0."""
        n = int((self.ranking.probability[image] > 0).sum())
        ranking, atom = self.ranking, self.ranking.atom[image, :n]
        area = ranking.overlay.area_km2[atom]
        return Leading(atom, ranking.probability[image, :n], ranking.log_density[image, :n], area, complete=True)

    def best_point(self, image: int) -> tuple[float, float, float]:
        """As `Ranking.expected_distance_point`."""
        return tuple(float(of[image]) for of in self._points)  # type: ignore[return-value]

    @cached_property
    def _points(self) -> tuple[F8, F8, F8]:
        return self.ranking.expected_distance_point()


@dataclass(frozen=True)
class Summary:
    """What is told of an image beside its regions. Areas are in km²; NaN where no atom has a density.

    `areas`: the least area that holds half, and nine tenths, of the probability. `set_size` and `set_area_km2`: of the
    conformal set, if there is one.
    """

    lat: float
    lon: float
    expected_km: float
    entropy: float
    areas: tuple[float, float]
    set_size: int | None
    set_area_km2: float | None


@dataclass(frozen=True)
class Answer:
    """The leading regions of an image, which of them are its answer, whether it has more, and the summary.

    `chosen`: indices of the leading regions, ascending. A conformal set by stratum may leave some out.
    """

    leading: Leading
    chosen: I8
    cut_short: bool
    summary: Summary


@dataclass(frozen=True)
class Answerer:
    """What is asked of every image.

    `cut` and `at`: where answers end, see `ranking_config.Cut`. `most`: regions of an answer. `sets`: conformal sets,
    of summaries, and of answers if `cut` is coverage. `least_km2`: the least area of a region; None: they are atoms.
    """

    ensemble: Ensemble
    cut: Literal["mass", "area_km2", "regions", "coverage"]
    at: float
    most: int
    sets: ConformalSets | None
    least_km2: float | None

    @property
    def partitions(self) -> dict[str, str]:
        """Names of partitions by the names of the members that predictions are of."""
        return {one.name: one.partition for one in self.ensemble.members if one.fixed is None}

    @cached_property
    def groups(self) -> I8 | None:
        """The region of each atom, (atoms,); None if atoms are the regions."""
        return None if self.least_km2 is None else coarse_regions(self.ensemble.overlay, self.least_km2)

    @cached_property
    def regions(self) -> Overlay:
        """The overlay whose atoms are the regions of answers."""
        overlay = self.ensemble.overlay
        return overlay if self.groups is None else coarse_overlay(overlay, self.groups)

    def images(self, predictions: Predictions) -> Iterator[tuple[Images, int]]:
        """Images chunk by chunk, in order, with their number."""
        if self.groups is None:
            for some in scored(self.ensemble, predictions):
                yield some, len(some.s)
        else:
            for ranking in rank(self.ensemble, predictions):
                yield CoarseImages(coarsen(ranking, self.groups, self.regions)), len(ranking.atom)

    def answer(self, images: Images, image: int) -> Answer:
        """The answer for an image."""
        mass = max(_SHARES[-1], self._reach, self.at if self.cut == "mass" else 0.0)
        regions = int(self.at) if self.cut == "regions" else self.most if self.cut == "coverage" else 0
        found = images.leading(image, mass, self.at if self.cut == "area_km2" else 0.0, regions)
        if not found.complete and found.probability.sum() <= self._reach * (1 + 2 * ROUNDING):
            found = images.leading(image, 1.0)  # the set may end just there
        held = np.cumsum(found.area_km2)
        areas = [float(held[n - 1]) if (n := found.within_mass(share)) else np.nan for share in _SHARES]
        chosen, in_all = self._chosen(found)
        size, area = (None, None) if self.sets is None else self._set_of(found)
        summary = Summary(*images.best_point(image), float(images.entropy[image]), (areas[0], areas[1]), size, area)
        n = min(in_all, self.most)
        return Answer(found, chosen[:n], in_all > n, summary)

    def _chosen(self, found: Leading) -> tuple[I8, int]:
        """Which of the leading regions are in the answer, in order, and how many it has in all."""
        if self.cut == "coverage":
            return np.flatnonzero(self._inside(found)), self._set_of(found)[0]
        if self.cut == "mass":
            n = found.within_mass(self.at)
        else:
            n = found.within_area(self.at) if self.cut == "area_km2" else min(int(self.at), len(found.atom))
        return np.arange(n), n

    @cached_property
    def _limits(self) -> F8:
        """The threshold of each atom's conformal set, (atoms,)."""
        assert self.sets is not None  # asked for only then
        n = self.ensemble.overlay.n_atoms
        return np.broadcast_to(self.sets.limits(np.arange(n)), n)

    @cached_property
    def _reach(self) -> float:
        """The probability that must be looked at to know the conformal set."""
        return 0.0 if self.sets is None else float(self._limits[self._limits < 1].max(initial=0.0))

    def _inside(self, found: Leading) -> NDArray[np.bool_]:
        return np.asarray(~(found.mass_at() > self._limits[found.atom]))

    def _set_of(self, found: Leading) -> tuple[int, float]:
        """Number of atoms and area of the conformal set. An atom whose threshold is all probability is in every set."""
        area, everywhere = self.ensemble.overlay.area_km2, self._limits >= 1
        if not found.atom.size:
            everywhere = np.full(area.size, True)  # nothing excludes an atom
        others = self._inside(found) & ~everywhere[found.atom]
        return int(everywhere.sum() + others.sum()), float(area[everywhere].sum() + found.area_km2[others].sum())
