"""Estimate all figures of an evaluation, with bootstrap intervals.

There is one set of figures for each system, for each value of each stratum, unbalanced and (if asked for) balanced.
Further rows give the difference between each system and the baseline.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geosieve.evaluation.bootstrap import Part, Sums, cell_sums, interval, poisson_counts
from geosieve.evaluation.measures import Columns, Figure, columns
from geosieve.evaluation.medians import Windows, sample_medians, windows
from geosieve.evaluation.protocols import PROTOCOLS
from geosieve.evaluation.scored import Answers, Name, Scored, Stratum
from geosieve.geo.arrays import F8
from geosieve.runtime.errors import InputError

ALL = "all"
"""Name of the stratum that contains all images, and of its only value."""
_MAX_BYTES = 2 << 30  # limit for the sums of all bootstrap samples: the driver keeps them in memory at the same time


@dataclass(frozen=True)
class Plan:
    """What to estimate.

    `protocols`: names in PROTOCOLS. `samples`, `seed`: number and seed of the bootstrap samples. `confidence`: coverage
    of the intervals, e.g. 0.95. `balance`: name of the stratum whose buckets get equal weight in the balanced figures;
    None: no balanced figures. `baseline`: name of the system that all others are compared to; None: the first system.
    """

    protocols: tuple[str, ...]
    samples: int
    seed: int
    confidence: float
    balance: str | None = None
    baseline: str | None = None


@dataclass(frozen=True)
class _Ranking:
    """What the medians of one system in one stratum are computed from.

    `values`: the distances of all images, (n,), radians or km. `windows`: the images near the median of each group.
    `below` and `total`: two column numbers of the sums. Column `below` counts the images below the window; column
    `total` counts all ranked images.
    """

    values: F8
    windows: Windows
    below: int
    total: int


@dataclass(frozen=True)
class _Order:
    """One system's images, sorted by distance.

    `values`: the distance of every image, (n,); infinite if there is no prediction. It is an angle in radians if
    `sphere`, else a geodesic in km. `rows`: image numbers by ascending distance. They include only the images with a
    prediction if `answered`, else all images, with those without a prediction last.
    """

    values: F8
    rows: NDArray[np.int64]
    sphere: bool
    answered: bool


def estimate(scored: Scored, plan: Plan) -> pd.DataFrame:
    """Compute all figures, as rows with the columns of table `evaluations`.

    The rows of `scored` must be sorted by key, and the names of its strata must be unique.
    InputError if the sums of all bootstrap samples would exceed the memory limit.
    """
    everything = Stratum(ALL, (ALL,), np.zeros(len(scored), np.int32))
    strata = (everything, *scored.strata)
    balancing = next((s for s in scored.strata if s.name == plan.balance), everything)
    common = _common(scored, plan)
    shared = columns(scored, plan.protocols, curves=False, common=common)
    curves = columns(scored, plan.protocols, curves=True)
    orders = _orders(scored, common)
    groups = [_Group(scored, plan, shared, curves if s is everything else None, s, balancing, orders) for s in strata]
    _refuse_large([group.part for group in groups], plan.samples)
    sums = cell_sums(scored.keys, shared.matrix, [group.part for group in groups], plan.seed, plan.samples)
    rows = [row for group, found in zip(groups, sums, strict=True) for row in group.rows(found)]
    return pd.concat(rows, ignore_index=True)


def _refuse_large(parts: Sequence[Part], samples: int) -> None:
    size = sum(part.n_cells * part.width for part in parts) * samples * np.dtype(np.float32).itemsize
    if size > _MAX_BYTES:
        cells = sum(part.n_cells for part in parts)
        raise InputError(
            f"the sums of {cells} cells and {samples} samples take {size / 2**30:.1f} GiB; "
            f"at most {_MAX_BYTES / 2**30:.0f} GiB are held",
            where="truth.strata",
            hint="evaluate fewer strata (a cell is a value of one, times the values of balance) or systems in one run, "
            "or draw fewer samples",
        )


def _pairs(scored: Scored, plan: Plan) -> list[tuple[str, str]]:
    """The comparisons to make: (system, baseline) for every system except the baseline."""
    baseline = plan.baseline or next(iter(scored.systems))
    return [(name, baseline) for name in scored.systems if name != baseline]


def _common(scored: Scored, plan: Plan) -> dict[Name, Answers]:
    """Answers of each two compared systems, restricted to the images for which both have a prediction.

    Key (a, b) holds the answers of a, key (b, a) those of b. Pairs that miss the same images are left out: their own
    answers serve.
    """
    found: dict[Name, Answers] = {}
    for pair in _pairs(scored, plan):
        both = [scored.systems[name] for name in pair]
        if not np.array_equal(both[0].missing, both[1].missing):
            lost = both[0].missing | both[1].missing
            for key, answers in zip((pair, pair[::-1]), both, strict=True):
                angle, geodesic = (np.where(lost, np.nan, of) for of in (answers.angle, answers.geodesic_km))
                found[key] = Answers(angle, geodesic, None, None)
    return found


def _orders(scored: Scored, common: Mapping[Name, Answers]) -> dict[Name, list[_Order]]:
    """The images sorted by distance on the sphere and on the ellipsoid, for each system and each pair in `common`."""
    found: dict[Name, list[_Order]] = {}
    for name, answers in [*scored.systems.items(), *common.items()]:
        found[name] = []
        for sphere in (True, False):
            values = np.nan_to_num(answers.angle if sphere else answers.geodesic_km, nan=np.inf)
            rows = np.argsort(values, kind="stable")
            held = rows[: int(np.isfinite(values).sum())]
            if name not in common:
                found[name].append(_Order(values, rows, sphere, answered=False))
            found[name].append(_Order(values, held, sphere, answered=True))
    return found


class _Group:
    """One stratum: what to sum over its cells, and the figures that follow from the sums.

    A cell is one value of the stratum combined with one bucket of the balancing stratum. `part` is the input for
    `cell_sums`; `rows` turns its result into figures.
    """

    def __init__(
        self,
        scored: Scored,
        plan: Plan,
        shared: Columns,
        curves: Columns | None,
        stratum: Stratum,
        balancing: Stratum,
        orders: dict[Name, list[_Order]],
    ) -> None:
        self._scored, self._plan, self._stratum = scored, plan, stratum
        self._balancing = balancing
        self._variants = (False, True) if plan.balance is not None else (False,)
        width = len(shared.makers)
        self._figures = shared.figures
        if curves is not None:
            moved = {name: _moved(figures, width) for name, figures in curves.figures.items()}
            self._figures = {name: (*figures, *moved.get(name, ())) for name, figures in shared.figures.items()}
            width += len(curves.makers)
        self._rankings: dict[tuple[Name, bool, bool, bool], _Ranking] = {}
        for name, order, balanced in ((n, o, b) for n, of in orders.items() for o in of for b in self._variants):
            known = self._rankings.get((name, order.sphere, balanced, False))
            if order.answered and known is not None and order.rows.size == len(scored):
                self._rankings[name, order.sphere, balanced, True] = known
                continue
            rows = order.rows
            if balanced and balancing.blanks:
                rows = rows[balancing.codes[rows] < balancing.n_buckets]
            found = windows(rows, stratum.codes, balancing.codes, len(stratum.values), balanced)
            total = _answered(self._figures[name]) if order.answered else 0
            self._rankings[name, order.sphere, balanced, order.answered] = _Ranking(order.values, found, width, total)
            width += 1
        below = [one.windows.below for one in {one.below: one for one in self._rankings.values()}.values()]

        def own(rows: slice) -> F8:
            indicators = np.stack([column[rows] for column in below], axis=1).astype(np.float64)
            return indicators if curves is None else np.hstack([curves.matrix(rows), indicators])

        cells = stratum.codes * len(balancing.values) + balancing.codes
        self.part = Part(cells, len(stratum.values) * len(balancing.values), width, own)

    def rows(self, sums: Sums) -> Iterator[pd.DataFrame]:
        """Yield the rows of `evaluations` for each value of the stratum.

        A value without images is skipped. So are its balanced figures if all its images lie outside the buckets.
        """
        for number, value in enumerate(self._stratum.values):
            start = number * len(self._balancing.values)
            for balanced in self._variants:
                counted = self._balancing.n_buckets if balanced else len(self._balancing.values)
                point, samples = sums.point[start:][:counted], sums.samples[start:][:counted]
                if point[:, 0].sum() == 0:
                    continue
                found = {name: self._of_system(name, number, point, samples, balanced) for name in self._figures}
                for name in self._scored.systems:
                    yield self._table(value, balanced, name, None, found[name])
                for first, second in _pairs(self._scored, self._plan):
                    difference = found[first].minus(found[second])
                    if (first, second) in found:
                        difference = difference.replaced(found[first, second].minus(found[second, first]))
                    yield self._table(value, balanced, first, second, difference)

    def _of_system(self, name: Name, number: int, point: F8, samples: NDArray[np.float32], balanced: bool) -> _Found:
        """All figures of one system for value `number` of the stratum, given the sums of this value's cells.

        `point`: (buckets, columns). `samples`: (buckets, columns, samples).
        """
        figures = self._figures[name]
        numerator, denominator = [f.numerator for f in figures], [f.denominator for f in figures]
        answered = _answered(figures)
        values = np.array([f.factor for f in figures]) * _ratio(point[:, numerator], point[:, denominator], balanced)
        # One figure at a time: double-precision copies for all figures together would be larger than the sums.
        drawn = np.stack(
            [f.factor * _ratio(samples[:, f.numerator], samples[:, f.denominator], balanced) for f in figures]
        )
        n = point[:, denominator].sum(0)
        names = [(f.metric, f.protocol, f.threshold_km, f.area_km2) for f in figures]
        protocols = [PROTOCOLS[p] for p in self._plan.protocols]
        for answers_only, metric in ((False, "median_km"), (True, "median_answered_km")):
            medians = {
                sphere: self._medians(ranking, balanced, number, point, samples)
                for sphere in sorted({protocol.radius_km is not None for protocol in protocols})
                if (ranking := self._rankings.get((name, sphere, balanced, answers_only))) is not None
            }
            for protocol in protocols if medians else ():
                median, of_samples = medians[protocol.radius_km is not None]
                factor = protocol.radius_km or 1.0
                names.append((metric, protocol.name, None, None))
                values, drawn = np.append(values, factor * median), np.vstack([drawn, factor * of_samples])
                n = np.append(n, point[:, answered if answers_only else 0].sum())
        missing = point[:, 0].sum() - point[:, answered].sum()
        return _Found(names, values, drawn, n, missing, self._refused(name, number, balanced))

    def _refused(self, name: Name, number: int, balanced: bool) -> int:
        """Number of images with value `number` of the stratum whose prediction was refused; 0 for a pair of systems."""
        refused = None if isinstance(name, tuple) else self._scored.systems[name].refused
        if refused is None:
            return 0
        counted = (refused.codes >= 0) & (self._stratum.codes == number)
        if balanced:
            counted &= self._balancing.codes < self._balancing.n_buckets
        return int(counted.sum())

    def _medians(
        self, ranking: _Ranking, balanced: bool, number: int, point: F8, samples: NDArray[np.float32]
    ) -> tuple[float, F8]:
        """The median over the images themselves, and the medians of the samples, (samples,).

        The other arguments are those of `_of_system`. All medians are NaN if there are no images to rank.
        """
        rows = ranking.windows.rows[number]
        values, buckets = ranking.values[rows], self._balancing.codes[rows]
        ones = np.ones((rows.size, 1), np.float32)
        counts = poisson_counts(self._scored.keys[rows], self._plan.seed, self._plan.samples)
        if not rows.size:
            return np.nan, np.full(self._plan.samples, np.nan)
        below, total = ranking.below, ranking.total
        of_images = sample_medians(values, ones, buckets, point[:, below, None], point[:, total, None], balanced)
        of_samples = sample_medians(
            values,
            counts,
            buckets,
            samples[:, below].astype(np.float64),
            samples[:, total].astype(np.float64),
            balanced,
        )
        return float(of_images[0]), of_samples

    def _table(self, value: str, balanced: bool, system: str, other: str | None, found: _Found) -> pd.DataFrame:
        """The rows of `evaluations` for the figures found; `other`: the system compared to, for differences."""
        low, high = interval(found.samples, self._plan.confidence)
        metric, protocol, threshold, area = zip(*found.names, strict=True)
        return pd.DataFrame(
            {
                "system": system,
                "compared_to": other,
                "metric": metric,
                "protocol": protocol,
                "stratum": self._stratum.name,
                "stratum_value": value,
                "balanced_by": self._plan.balance if balanced else None,
                "threshold_km": np.array(threshold, np.float64),
                "area_km2": np.array(area, np.float64),
                "value": _finite(found.values),
                "low": _finite(low),
                "high": _finite(high),
                "n": found.n.astype(np.int64),
                "missing": int(found.missing),
                "refused": found.refused,
            }
        )


@dataclass(frozen=True)
class _Found:
    """f figures of one system, or f differences between two systems.

    `names`: (metric, protocol, threshold_km, area_km2) of each figure. `values`: (f,). `samples`: the values in the
    bootstrap samples, (f, samples). `n`: number of images behind each figure, (f,). `missing`: number of images without
    a prediction. `refused`: number of those whose prediction was refused.
    """

    names: list[tuple[str, str, float | None, float | None]]
    values: F8
    samples: F8
    n: F8
    missing: float
    refused: int

    def minus(self, other: _Found) -> _Found:
        """The differences `self` − `other`, sample by sample, of the figures that both have.

        `n` is the smaller of the two numbers, `missing` and `refused` are sums of both.
        """
        place = {name: k for k, name in enumerate(other.names)}
        mine = [k for k, name in enumerate(self.names) if name in place]
        names = [self.names[k] for k in mine]
        theirs = [place[name] for name in names]
        with np.errstate(invalid="ignore"):  # the difference of two infinite medians is NaN
            values, samples = self.values[mine] - other.values[theirs], self.samples[mine] - other.samples[theirs]
        n = np.minimum(self.n[mine], other.n[theirs])
        return _Found(names, values, samples, n, self.missing + other.missing, self.refused + other.refused)

    def replaced(self, by: _Found) -> _Found:
        """A copy in which the figures of `by` replace those of the same names.

        `by` holds the figures that use only the images for which both systems have a prediction.
        """
        place = {name: k for k, name in enumerate(self.names)}
        at = [place[name] for name in by.names]
        values, samples, n = self.values.copy(), self.samples.copy(), self.n.copy()
        values[at], samples[at], n[at] = by.values, by.samples, by.n
        return _Found(self.names, values, samples, n, self.missing, self.refused)


def _answered(figures: Sequence[Figure]) -> int:
    """The number of the column that counts the images with a prediction."""
    return next(f.denominator for f in figures if f.metric == "mean_km")


def _moved(figures: Sequence[Figure], by: int) -> tuple[Figure, ...]:
    """Figures of the curves, with their numerators `by` columns further right, after the shared columns.

    Their denominator remains column 0, the number of images.
    """
    return tuple(
        Figure(f.metric, f.protocol, f.numerator + by, f.denominator, f.factor, f.threshold_km, f.area_km2)
        for f in figures
    )


def _ratio(numerator: NDArray[np.floating[Any]], denominator: NDArray[np.floating[Any]], balanced: bool) -> F8:
    """Ratios of sums, shape (n,), from numerators and denominators of shape (buckets, n).

    Unbalanced: the ratio of the totals over all buckets. Balanced: the mean of the buckets' ratios, without the buckets
    whose denominator is 0. NaN if all denominators are 0.
    """
    numerator, denominator = numerator.astype(np.float64), denominator.astype(np.float64)
    if not balanced:
        numerator, denominator = numerator.sum(0, keepdims=True), denominator.sum(0, keepdims=True)
    held = denominator > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(held, numerator / denominator, 0.0)
        return np.asarray(ratios.sum(0) / held.sum(0))


def _finite(values: F8) -> F8:
    return np.where(np.isfinite(values), values, np.nan)
