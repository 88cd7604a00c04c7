"""Express each figure as a ratio of two sums over images: the columns to sum, and the figures made from them.

Recalls, hits, scores, mean distances and the summary of a Recall-vs-Area curve are all means of one number per image.
So one matrix with a column for each such number serves all figures, strata and bootstrap samples. Medians are
computed differently: see `medians`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geosieve.evaluation import places
from geosieve.evaluation.protocols import (
    EARTH_AREA_KM2,
    PROTOCOLS,
    THRESHOLDS_KM,
    Protocol,
    cap_area_km2,
    log_area_score,
)
from geosieve.evaluation.scored import Answers, Name, Scored
from geosieve.geo.arrays import F8

Rows = slice

RECALL_VS_AREA, REVERSE_GEOCODER = "recall_vs_area", "reverse_geocoder"
"""Names of the protocols that do not measure great-circle distance (GCD)."""

CURVE_KM = tuple(np.round(10 ** (np.arange(26) / 6), 3).tolist())
"""Distances of the points of a recall curve: 1 to 14,678 km, six per decade."""
CURVE_KM2 = tuple(np.geomspace(cap_area_km2(1.0), EARTH_AREA_KM2, 50).tolist())
"""Areas of the points of a Recall-vs-Area curve: from a cap of 1 km radius to the whole Earth, six per decade."""


@dataclass(frozen=True)
class Figure:
    """One figure of one system: `factor` × sum of column `numerator` / sum of column `denominator`.

    `threshold_km`: the distance of a recall, or the radius of the spherical cap that has the area `area_km2`.
    """

    metric: str
    protocol: str
    numerator: int
    denominator: int
    factor: float = 1.0
    threshold_km: float | None = None
    area_km2: float | None = None


@dataclass(frozen=True)
class Columns:
    """The columns to sum, and the figures made from them.

    `makers`: for each column, a function that returns its values for a range of rows. Column 0 is 1 for every image.
    `figures`: the figures of each system, and of each pair (system, compared to) that was given as `common`.
    """

    makers: tuple[Callable[[Rows], NDArray[np.generic]], ...]
    figures: dict[Name, tuple[Figure, ...]]

    def matrix(self, rows: Rows) -> F8:
        """The columns for a range of images, shape (rows, columns)."""
        return np.stack([maker(rows) for maker in self.makers], axis=1).astype(np.float64, copy=False)


def columns(
    scored: Scored, protocols: Sequence[str], curves: bool, common: Mapping[Name, Answers] | None = None
) -> Columns:
    """Columns and figures of every system.

    With `curves`, these are only the points of the curves; without, all other figures. `protocols`: names of the GCD
    protocols; recall curves use the first one. `common`: answers of a system restricted to the images for which it and
    another system have a prediction; only mean distances are computed from them.
    """
    builder = _Builder(scored)
    figures: dict[Name, tuple[Figure, ...]] = {
        name: tuple(builder.figures(name, answers, protocols, curves)) for name, answers in scored.systems.items()
    }
    for name, answers in (common or {}).items():
        figures[name] = tuple(builder.mean(name, answers, PROTOCOLS[p]) for p in protocols)
    return Columns(tuple(builder.makers), figures)


class _Builder:
    """Collects columns while figures are made, and shares a column between all figures that use it."""

    def __init__(self, scored: Scored) -> None:
        self._named = scored.named
        self.makers: list[Callable[[Rows], NDArray[np.generic]]] = [
            lambda rows: np.ones(len(range(*rows.indices(len(scored)))))
        ]
        self._known: dict[object, int] = {}

    def _column(self, key: object, maker: Callable[[Rows], NDArray[np.generic]]) -> int:
        """The number of the column `key`; figures that use the same column share it."""
        if key not in self._known:
            self._known[key] = len(self.makers)
            self.makers.append(maker)
        return self._known[key]

    def figures(self, name: str, answers: Answers, protocols: Sequence[str], curves: bool) -> list[Figure]:
        """The figures of one system: only the points of its curves if `curves`, else all others."""
        found = []
        if not curves:
            for protocol in (PROTOCOLS[p] for p in protocols):
                found += self._distance_figures(name, answers, protocol)
            found += self._place_figures(name, answers)
        else:
            first = PROTOCOLS[protocols[0]]
            found += [self._recall(name, answers, first, t, "recall_curve") for t in CURVE_KM]
        if answers.area_km2 is not None:
            found += self._area_figures(name, answers.area_km2, curves)
        return found

    def _recall(self, name: str, answers: Answers, protocol: Protocol, threshold: float, metric: str) -> Figure:
        def maker(rows: Rows) -> NDArray[np.bool_]:
            return protocol.hit(protocol.distance_km(answers.angle[rows], answers.geodesic_km[rows]), threshold)

        # < and <= differ only if a distance equals the threshold exactly. Otherwise one column serves both.
        exact = bool(np.any(protocol.distance_km(answers.angle, answers.geodesic_km) == threshold))
        column = self._column((name, protocol.radius_km, exact and protocol.inclusive, threshold), maker)
        return Figure(metric, protocol.name, column, 0, threshold_km=threshold)

    def _distance_figures(self, name: str, answers: Answers, protocol: Protocol) -> list[Figure]:
        found = [self._recall(name, answers, protocol, threshold, "recall") for threshold in THRESHOLDS_KM]
        found.append(self.mean(name, answers, protocol))
        if protocol.geoscore is not None:

            def score(rows: Rows) -> F8:
                distance = protocol.distance_km(answers.angle[rows], answers.geodesic_km[rows])
                return np.nan_to_num(protocol.score(distance))

            column = self._column((name, "score", protocol.name), score)
            found.append(Figure("geoscore", protocol.name, column, 0))
        return found

    def mean(self, name: Name, answers: Answers, protocol: Protocol) -> Figure:
        """The mean distance, km, over the images that have a prediction."""
        base = answers.geodesic_km if protocol.radius_km is None else answers.angle
        answered = self._column((name, "answered"), lambda rows: ~np.isnan(answers.angle[rows]))
        distance = self._column((name, "sum", base is answers.angle), lambda rows: np.nan_to_num(base[rows]))
        return Figure("mean_km", protocol.name, distance, answered, factor=protocol.radius_km or 1.0)

    def _place_figures(self, name: str, answers: Answers) -> list[Figure]:
        hits, named = answers.hits, self._named
        if hits is None or named is None:
            return []

        def of(array: NDArray[np.bool_], level: int) -> Callable[[Rows], NDArray[np.generic]]:
            return lambda rows: array[rows, level]

        return [
            Figure(
                f"hit_{place}",
                REVERSE_GEOCODER,
                self._column((name, place), of(hits, level)),
                self._column(("named", place), of(named, level)),
            )
            for level, place in enumerate(places.LEVELS)
        ]

    def _area_figures(self, name: str, area: F8, curves: bool) -> list[Figure]:
        def within(limit: float) -> Callable[[Rows], NDArray[np.generic]]:
            return lambda rows: area[rows] <= limit

        def at(metric: str, limit: float, radius: float | None = None) -> Figure:
            column = self._column((name, "area", limit), within(limit))
            return Figure(metric, RECALL_VS_AREA, column, 0, threshold_km=radius, area_km2=limit)

        if curves:
            return [at("area_curve", limit) for limit in CURVE_KM2]
        caps = [at("area_recall", float(cap_area_km2(radius)), radius) for radius in THRESHOLDS_KM]
        summary = self._column((name, "aurc"), lambda rows: log_area_score(area[rows]))
        return [*caps, Figure("aurc", RECALL_VS_AREA, summary, 0)]
