"""Weights and temperatures fitted on a validation split, and how well stated probabilities hold.

The logarithm of an ensemble's density is linear in w/T (times the logarithm of a member's probabilities) and in w
(times minus the logarithm of its regions' areas), so that the mean log score of the truth, a proper score (Good 1952),
is concave in both and has one maximum.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize

from geosieve.ensemble.members import Ensemble, Factors, Predictions
from geosieve.geo.arrays import F8, I8
from geosieve.runtime.errors import InputError

FLOOR = 1e-12
"""Probabilities below this count as this much in the log score: one zero at a truth would outweigh all other images."""
_LEAST, _MOST = 1e-3, 10.0  # of weights, and of weights over temperatures


@dataclass(frozen=True)
class Fit:
    """A fitted ensemble and the mean log scores (nats per km²) of the plain and the fitted one on the fitting images.

    `left_out`: images whose truth lies outside of the partition of a member that they have, or without any
    prediction.
    """

    ensemble: Ensemble
    plain_score: float
    fitted_score: float
    left_out: int


def fit(ensemble: Ensemble, predictions: Predictions, truth: ArrayLike) -> Fit:
    """Fit every member's weight and temperature to the true atoms, (images,).

    InputError if no image can be used.
    """
    truth = np.asarray(truth, dtype=np.int64)
    model = _LogLinear.of(ensemble, predictions, truth)
    start = np.concatenate([[p.weight / p.temperature for p in ensemble.members], [p.weight for p in ensemble.members]])
    result = minimize(
        model.loss, start, jac=True, method="L-BFGS-B", bounds=[(_LEAST, _MOST)] * start.size, options={"maxiter": 200}
    )
    k = len(ensemble.members)
    changed = tuple(
        replace(p, weight=float(w), temperature=float(w / a))
        for p, a, w in zip(ensemble.members, result.x[:k], result.x[k:], strict=True)
    )
    left_out = int((~model.usable).sum())
    return Fit(Ensemble(ensemble.overlay, changed), -model.loss(start)[0], -float(result.fun), left_out)


def log_score(ensemble: Ensemble, predictions: Predictions, truth: ArrayLike) -> tuple[float, int]:
    """Mean natural logarithm of the density at the true atom, per km², and of how many images; FLOOR applies.

    Images are left out as in a Fit: compare systems only if they are of as many.
    """
    weights = np.array([p.weight for p in ensemble.members])
    over_t = np.array([p.weight / p.temperature for p in ensemble.members])
    model = _LogLinear.of(ensemble, predictions, np.asarray(truth, dtype=np.int64))
    return -model.loss(np.concatenate([over_t, weights]))[0], int(model.usable.sum())


@dataclass(frozen=True)
class _LogLinear:
    """The log density as a sum of parameters times features. Features by member: log p and -log area of a region.

    Log p is computed again for a few images at a time whenever it is needed: of all it would be larger than the input.
    """

    ensemble: Ensemble
    factors: Factors  # log densities of the plain members
    log_area: list[F8]  # (1 + regions,), with a minus
    truth: I8
    usable: NDArray[np.bool_]  # (images,)

    @classmethod
    def of(cls, ensemble: Ensemble, predictions: Predictions, truth: I8) -> _LogLinear:
        plain = tuple(replace(p, weight=1.0, temperature=1.0) for p in ensemble.members)
        ensemble = Ensemble(ensemble.overlay, plain)
        factors, truth = ensemble.matched(predictions, truth, FLOOR)
        areas = [ensemble.overlay.region_areas_km2[ensemble.overlay.column(p.partition)] for p in plain]
        minus_log = [np.concatenate([[0.0], -np.log(np.where(a > 0, a, 1.0))]) for a in areas]
        at = [columns[truth] for columns in ensemble.columns]
        usable = np.zeros(truth.size, bool)
        for images in ensemble.chunks(truth.size):
            held, said = factors[images], np.zeros(images.stop - images.start, bool)
            covered = ~said
            for f, a in zip(held, at, strict=True):
                covered &= np.isfinite(f[np.arange(len(f)), a[images]])
                said |= _said(f)
            usable[images] = covered & said
        if not usable.any():
            raise InputError("no image has a prediction and a truth that the overlay's partitions cover")
        return cls(ensemble, factors, minus_log, truth, usable)

    def loss(self, parameters: F8) -> tuple[float, F8]:
        """Mean negative log score and its gradient."""
        k = len(self.log_area)
        over_t, weights = parameters[:k], parameters[k:]
        total, gradient = 0.0, np.zeros(2 * k)
        for images in self.ensemble.chunks(self.truth.size):
            held = [f[self.usable[images]] for f in self.factors[images]]
            areas = [np.where(_said(f)[:, None], g, 0.0) for f, g in zip(held, self.log_area, strict=True)]
            log_p = [f - g for f, g in zip(held, areas, strict=True)]
            loss, slope = self._loss_of(log_p, areas, over_t, weights, self.truth[images][self.usable[images]])
            total, gradient = total + loss, gradient + slope
        return total / self.usable.sum(), gradient / self.usable.sum()

    def _loss_of(self, log_p: list[F8], areas: list[F8], over_t: F8, weights: F8, truth: I8) -> tuple[float, F8]:
        structure, rows = self.ensemble.structure, np.arange(truth.size)
        factors = [a * f + w * g for a, f, w, g in zip(over_t, log_p, weights, areas, strict=True)]
        s, v = structure.scores(factors)
        at_truth = s[rows, structure.cell[truth]] + v[rows, structure.profile[truth]]
        top_s, top_v = s.max(axis=1, keepdims=True), v.max(axis=1, keepdims=True)
        exp_s, exp_v = np.exp(s - top_s), np.exp(v - top_v)
        by_profile = structure.by_profile(exp_s, exp_v)
        z = np.maximum(by_profile.sum(axis=1), np.finfo(np.float64).tiny)  # sharp ones may exclude each other
        by_cell = exp_s * (structure.areas @ exp_v.T).T
        loss = np.log(z) + top_s[:, 0] + top_v[:, 0] - at_truth
        slopes = np.empty((2, len(log_p)))
        others = iter(structure.profiles.T)
        for k, features in enumerate(zip(log_p, areas, strict=True)):
            if k == structure.base:
                mass, columns, at = by_cell, np.arange(by_cell.shape[1]), structure.cell[truth]
            else:
                columns = next(others)
                mass, at = by_profile, columns[structure.profile[truth]]
            for j, feature in enumerate(features):
                held = np.where(mass > 0, feature[:, columns], 0.0)  # outside, log p is -inf and the mass 0
                slopes[j, k] = ((mass * held).sum(axis=1) / z - feature[rows, at]).sum()
        return float(loss.sum()), slopes.ravel()


def _said(factor: F8) -> NDArray[np.bool_]:
    """Which images have a prediction, (images,)."""
    return np.asarray((factor != 0).any(axis=1))


def reliability(mass_before: ArrayLike, credible_level: ArrayLike, levels: ArrayLike) -> F8:
    """Share of images whose truth lies in the densest region of each stated probability: a reliability diagram.

    `mass_before` and `credible_level` (images,) as of Ensemble. A region of exactly a level's probability ends within
    an atom; an image whose truth is that atom counts by the part of it that is inside, so that calibrated is share =
    level however large atoms are. Missing (NaN) is never inside.
    """
    before, needed = (np.asarray(of, dtype=np.float64)[:, None] for of in (mass_before, credible_level))
    with np.errstate(invalid="ignore", divide="ignore"):
        part = (np.asarray(levels, dtype=np.float64)[None, :] - before) / (needed - before)
    return np.asarray(np.clip(np.nan_to_num(part, nan=0.0), 0.0, 1.0).mean(axis=0))
