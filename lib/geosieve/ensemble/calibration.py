"""Fit weights and temperatures of an ensemble on a validation split, and check its calibration.

Before normalisation, the log density of an ensemble is a sum over the members of (w/T) · log p - w · log area, where w
is the weight, T the temperature, p the probability and area the area of a region. This is linear in w/T and w. So the
mean log score of the true atoms, a proper score (Good 1952), is concave in these parameters, and every local maximum is
a global one.
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
"""Smaller probabilities are raised to this in the log score: one zero at a truth would outweigh all other images."""
_LEAST, _MOST = 1e-3, 10.0  # bounds of w and of w/T


@dataclass(frozen=True)
class Fit:
    """A fitted ensemble, and the mean log scores before and after the fit, on the images of the fit.

    A log score is the natural logarithm of the density per km² at the true atom. `left_out`: number of images that were
    not used. These have no prediction at all, or their true atom lies outside of the partition of a member that has a
    prediction for them.
    """

    ensemble: Ensemble
    plain_score: float
    fitted_score: float
    left_out: int


def fit(ensemble: Ensemble, predictions: Predictions, truth: ArrayLike) -> Fit:
    """Fit every member's weight and temperature to the true atoms `truth`, (images,), by L-BFGS-B.

    InputError if no image can be used, or as in `Ensemble.matched`.
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
    """Mean log score of an ensemble, and the number of images it is the mean of.

    The log score is the natural logarithm of the density per km² at the true atom; FLOOR applies. Images are left out
    as described in `Fit`, so compare two systems only if they use the same number of images. InputError as in `fit`.
    """
    weights = np.array([p.weight for p in ensemble.members])
    over_t = np.array([p.weight / p.temperature for p in ensemble.members])
    model = _LogLinear.of(ensemble, predictions, np.asarray(truth, dtype=np.int64))
    return -model.loss(np.concatenate([over_t, weights]))[0], int(model.usable.sum())


@dataclass(frozen=True)
class _LogLinear:
    """The unnormalised log density as a sum of parameters times features.

    Each member has two features: log p with parameter w/T, and -log area with parameter w. Log p is computed again for
    each chunk of images, because keeping it for all images would take more memory than the input.
    """

    ensemble: Ensemble
    factors: Factors  # log densities of the members at weight 1 and temperature 1
    log_area: list[F8]  # -log area of each member's regions, (1 + regions,), 0 in column 0
    truth: I8  # (images,)
    usable: NDArray[np.bool_]  # (images,)

    @classmethod
    def of(cls, ensemble: Ensemble, predictions: Predictions, truth: I8) -> _LogLinear:
        """The model of these images. InputError if none is usable."""
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
        """Mean negative log score and its gradient. `parameters`: w/T of all members, then w of all members, (2 k,)."""
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
        """Sum of negative log scores of a chunk of images, and its gradient."""
        structure, rows = self.ensemble.structure, np.arange(truth.size)
        factors = [a * f + w * g for a, f, w, g in zip(over_t, log_p, weights, areas, strict=True)]
        s, v = structure.scores(factors)
        at_truth = s[rows, structure.cell[truth]] + v[rows, structure.profile[truth]]
        top_s, top_v = s.max(axis=1, keepdims=True), v.max(axis=1, keepdims=True)
        exp_s, exp_v = np.exp(s - top_s), np.exp(v - top_v)
        by_profile = structure.by_profile(exp_s, exp_v)
        z = np.maximum(by_profile.sum(axis=1), np.finfo(np.float64).tiny)  # sharp members may exclude each other
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
                held = np.where(mass > 0, feature[:, columns], 0.0)  # log p is -inf where the mass is 0: avoid 0 · inf
                slopes[j, k] = ((mass * held).sum(axis=1) / z - feature[rows, at]).sum()
        return float(loss.sum()), slopes.ravel()


def _said(factor: F8) -> NDArray[np.bool_]:
    """Which images have a prediction in this factor, (images,): the factor is 0 everywhere for the others."""
    return np.asarray((factor != 0).any(axis=1))


def reliability(mass_before: ArrayLike, credible_level: ArrayLike, levels: ArrayLike) -> F8:
    """Points of a reliability diagram: the share of images whose truth lies in their densest region of each level.

    `mass_before` and `credible_level`, (images,), come from the Ensemble methods of these names; `levels`, (n,), are
    probabilities. Returns the shares, (n,). A region with exactly the probability of a level usually ends inside an
    atom. If this is the true atom, the image counts with the fraction of the atom that is inside. So a calibrated
    ensemble has share = level, however large its atoms are. NaN (no atom has a density) counts as outside.
    """
    before, needed = (np.asarray(of, dtype=np.float64)[:, None] for of in (mass_before, credible_level))
    with np.errstate(invalid="ignore", divide="ignore"):
        part = (np.asarray(levels, dtype=np.float64)[None, :] - before) / (needed - before)
    return np.asarray(np.clip(np.nan_to_num(part, nan=0.0), 0.0, 1.0).mean(axis=0))
