"""Fitted weights, reliability, conformal sets and claims, on synthetic images whose truth follows a known law."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import approx_fprime
from scipy.stats import binom
from small_worlds import ensemble_of, overlay_of, random_maps, random_predictions

from geosieve.ensemble.calibration import _LogLinear, fit, log_score, reliability
from geosieve.ensemble.conformal import ConformalSets, check_claims, mass_at, quantile
from geosieve.ensemble.members import Ensemble, Predictions, Probabilities, mask_prior, with_weights
from geosieve.ensemble.ranking import rank
from geosieve.overlay.atoms import Overlay
from geosieve.runtime.errors import InputError

REGIONS = [24, 4, 6]


def world(seed: int, images: int) -> tuple[Ensemble, Predictions]:
    rng = np.random.default_rng(seed)
    overlay, _ = overlay_of(random_maps(rng, 16, REGIONS), REGIONS)
    return ensemble_of(overlay), random_predictions(rng, REGIONS, images)


def masses(ensemble: Ensemble, predictions: Predictions) -> np.ndarray:
    """Probability of every atom, (images, atoms), from all scores."""
    scores = ensemble.scores(predictions)
    p = np.exp(scores - scores.max(axis=1, keepdims=True)) * ensemble.overlay.area_km2
    return p / p.sum(axis=1, keepdims=True)


def drawn(seed: int, ensemble: Ensemble, predictions: Predictions) -> np.ndarray:
    """For each image an atom drawn from the ensemble's own probabilities."""
    held = np.cumsum(masses(ensemble, predictions), axis=1)
    return (np.random.default_rng(seed).random((len(held), 1)) > held).sum(axis=1)


def test_the_gradient_is_that_of_the_loss() -> None:
    ensemble, predictions = world(1, 12)
    model = _LogLinear.of(ensemble, predictions, drawn(2, ensemble, predictions))
    at = np.random.default_rng(3).uniform(0.3, 1.5, 6)
    numeric = approx_fprime(at, lambda x: model.loss(x)[0], 1e-6)
    assert model.loss(at)[1] == pytest.approx(numeric, abs=1e-4)


def test_the_log_score_is_the_density_at_the_truth() -> None:
    ensemble, predictions = world(4, 9)
    truth = drawn(5, ensemble, predictions)
    scores = ensemble.scores(predictions)
    total = (np.exp(scores) * ensemble.overlay.area_km2).sum(axis=1)
    expected = (scores[np.arange(9), truth] - np.log(total)).mean()
    assert log_score(ensemble, predictions, truth) == (pytest.approx(expected, rel=1e-9), 9)


def test_fitting_finds_the_law_that_drew_the_truth_and_wins_on_held_out_images() -> None:
    ensemble, predictions = world(6, 8000)
    law = with_weights(ensemble, {"model0": 1.0, "model1": 0.4, "model2": 0.8}, {"model0": 2.0})
    truth = drawn(7, law, predictions)
    first = {name: Probabilities(p.partition_hash, p.values[:4000]) for name, p in predictions.items()}
    rest = {name: Probabilities(p.partition_hash, p.values[4000:]) for name, p in predictions.items()}
    fitted = fit(ensemble, first, truth[:4000])
    over_t = [p.weight / p.temperature for p in fitted.ensemble.members]
    assert over_t == pytest.approx([0.5, 0.4, 0.8], abs=0.06)
    assert fitted.left_out == 0
    assert fitted.fitted_score > fitted.plain_score
    held_out, plain, best = (log_score(one, rest, truth[4000:])[0] for one in (fitted.ensemble, ensemble, law))
    assert held_out > plain
    assert held_out == pytest.approx(best, abs=0.01)


def test_an_image_that_cannot_be_scored_is_counted() -> None:
    ensemble, predictions = world(8, 50)
    truth = drawn(9, ensemble, predictions)
    values = {name: p.values.copy() for name, p in predictions.items()}
    for of in values.values():
        of[7] = np.nan
    holes = {name: Probabilities(predictions[name].partition_hash, of) for name, of in values.items()}
    assert fit(ensemble, holes, truth).left_out == 1


def test_the_mass_needed_is_that_of_the_denser_atoms() -> None:
    ensemble, predictions = world(10, 6)
    truth = np.random.default_rng(1).integers(0, ensemble.overlay.n_atoms, 6)
    scores, p = ensemble.scores(predictions), masses(ensemble, predictions)
    expected = [p[i][scores[i] >= scores[i, truth[i]]].sum() for i in range(6)]
    assert ensemble.credible_level(predictions, truth) == pytest.approx(expected, rel=1e-9)
    expected_ranks = [(scores[i] >= scores[i, truth[i]]).sum() for i in range(6)]
    assert ensemble.ranks(predictions, truth).tolist() == expected_ranks
    (ranking,) = rank(ensemble, predictions)
    needed = np.empty_like(p)
    np.put_along_axis(needed, ranking.atom, mass_at(ranking), axis=1)
    assert needed[np.arange(6), truth] == pytest.approx(expected, rel=1e-9)


def test_a_calibrated_ensemble_is_reliable_and_an_overconfident_one_is_not() -> None:
    ensemble, predictions = world(11, 4000)
    truth = drawn(12, ensemble, predictions)
    levels = np.array([0.2, 0.5, 0.8, 1.0])
    calibrated = _reliability(ensemble, predictions, truth, levels)
    overconfident = _reliability(
        with_weights(ensemble, {}, dict.fromkeys(predictions, 0.5)), predictions, truth, levels
    )
    assert calibrated == pytest.approx(levels, abs=6 * np.sqrt(0.25 / 4000))
    assert (overconfident[:-1] < calibrated[:-1] - 0.05).all()


def test_weights_of_unknown_members_are_refused() -> None:
    ensemble, _ = world(11, 10)
    with pytest.raises(InputError, match=r"no member modell0 .*did you mean 'model0'"):
        with_weights(ensemble, {"modell0": 0.5}, {})
    with pytest.raises(InputError, match=r"no member xyz .*its members: "):
        with_weights(ensemble, {}, {"xyz": 0.5})


def _reliability(ensemble: Ensemble, predictions: Predictions, truth: np.ndarray, levels: np.ndarray) -> np.ndarray:
    before, needed = ensemble.mass_before(predictions, truth), ensemble.credible_level(predictions, truth)
    return reliability(before, needed, levels)


def test_a_reliable_ensemble_of_few_large_regions_is_found_reliable() -> None:
    overlay, _ = overlay_of([np.repeat(np.arange(4), 9).reshape(6, 6).repeat(2, axis=1)], [4])
    ensemble, rng = ensemble_of(overlay), np.random.default_rng(1)
    predictions = {"model0": Probabilities("hash0", rng.dirichlet(np.ones(4), 5000))}
    truth = drawn(3, ensemble, predictions)
    levels = np.array([0.1, 0.3, 0.5, 0.7, 0.9])
    assert _reliability(ensemble, predictions, truth, levels) == pytest.approx(levels, abs=6 * np.sqrt(0.25 / 5000))


def test_a_prior_that_is_often_wrong_is_not_taken_for_a_good_one() -> None:
    """The truth knows nothing of the prior: its weight must vanish, also though it excludes half of the truths."""
    rng = np.random.default_rng(5)
    overlay, _ = overlay_of(random_maps(rng, 16, [24, 4]), [24, 4])
    base = ensemble_of(overlay).members[0]
    alone = Ensemble(overlay, (base,))
    predictions = {base.name: Probabilities("hash0", rng.dirichlet(np.full(24, 0.5), 3000))}
    truth = drawn(6, alone, predictions)
    fitted = fit(Ensemble(overlay, (base, mask_prior(overlay, "prior", "p1", [0, 1]))), predictions, truth)
    assert fitted.left_out == 0
    assert fitted.ensemble.members[1].weight < 0.02
    assert fitted.fitted_score == pytest.approx(log_score(alone, predictions, truth)[0], abs=0.02)


def test_the_mass_before_the_truth_is_that_of_denser_atoms() -> None:
    ensemble, predictions = world(10, 6)
    truth = np.random.default_rng(1).integers(0, ensemble.overlay.n_atoms, 6)
    scores, p = ensemble.scores(predictions), masses(ensemble, predictions)
    expected = [p[i][scores[i] > scores[i, truth[i]]].sum() for i in range(6)]
    assert ensemble.mass_before(predictions, truth) == pytest.approx(expected, rel=1e-9, abs=1e-15)


def test_masses_of_members_that_nearly_exclude_each_other_do_not_underflow() -> None:
    maps = [np.array([[0, 0, 1, 1]] * 2), np.array([[0, 0, 1, 1]] * 2)]
    overlay, _ = overlay_of(maps, [2, 2])
    ensemble = with_weights(ensemble_of(overlay), {}, {"model0": 0.1, "model1": 0.1})
    against: dict[str, Probabilities] = {
        "model0": Probabilities("hash0", np.array([[1.0, 1e-40]])),
        "model1": Probabilities("hash1", np.array([[1e-35, 1.0]])),
    }
    # (1e-40)^10 against (1e-35)^10
    assert ensemble.credible_level(against, [0]) == pytest.approx(1.0)
    assert ensemble.credible_level(against, [1]) == pytest.approx(1.0)
    assert ensemble.mass_before(against, [1]) == pytest.approx(1.0)


def test_the_quantile_of_split_conformal_prediction() -> None:
    # n = 9: 90 % coverage takes the 9th of 9; 95 % would take the 10th, which is not there.
    scores = np.arange(1.0, 10.0)
    assert quantile(scores, 0.9) == 9.0
    assert quantile(scores, 0.5) == 5.0
    assert quantile(scores, 0.95) == np.inf
    assert quantile([0.3, np.nan, 0.1], 0.5) == 0.3
    with pytest.raises(ValueError, match="between 0 and 1"):
        quantile(scores, 1.0)


@settings(max_examples=10)
@given(seed=st.integers(0, 2**31), coverage=st.sampled_from([0.5, 0.8, 0.9]))
def test_conformal_sets_cover_what_they_state(seed: int, coverage: float) -> None:
    # Truth follows another law than the ensemble states: coverage must hold nevertheless.
    ensemble, predictions = world(seed, 3000)
    law = with_weights(ensemble, {"model1": 0.1}, {"model0": 3.0})
    truth = drawn(seed + 1, law, predictions)
    needed = ensemble.credible_level(predictions, truth)
    calibration, test = slice(0, 1500), slice(1500, 3000)
    sets = ConformalSets.marginal(needed[calibration], coverage)
    covered = int(sets.covers(needed[test], truth[test]).sum())
    # Coverage given the calibration set is Beta(k, n + 1 - k): its spread and the test's are both allowed for.
    low = binom.ppf(1e-7, 1500, coverage - 6 * np.sqrt(coverage * (1 - coverage) / 1500))
    assert covered >= low
    stratum = ensemble.overlay.labels[:, 1]
    by_stratum = ConformalSets.by_stratum(needed[calibration], truth[calibration], stratum, coverage)
    inside = by_stratum.covers(needed[test], truth[test])
    for k in range(REGIONS[1]):
        mine = stratum[truth[test]] == k
        calibrated = (stratum[truth[calibration]] == k).sum()
        if mine.any():
            slack = 6 * np.sqrt(coverage * (1 - coverage) * (1 / (calibrated + 1) + 1 / mine.sum()))
            assert inside[mine].mean() >= coverage - slack


def test_a_set_holds_the_truth_that_it_is_said_to_cover() -> None:
    ensemble, predictions = world(13, 40)
    truth = drawn(14, ensemble, predictions)
    needed = ensemble.credible_level(predictions, truth)
    stratum = ensemble.overlay.labels[:, 1]
    area = ensemble.area_to_truth_km2(predictions, truth)
    for sets, of in (
        (ConformalSets.marginal(needed[:20], 0.6), needed),
        (ConformalSets.by_stratum(needed[:20], truth[:20], stratum, 0.6), needed),
        (ConformalSets.marginal(area[:20], 0.6, "area"), area),
        (ConformalSets.by_stratum(area[:20], truth[:20], stratum, 0.6, "area"), area),
    ):
        (ranking,) = rank(ensemble, predictions)
        held = np.empty(ranking.atom.shape, dtype=bool)
        np.put_along_axis(held, ranking.atom, sets.holds(ranking), axis=1)
        assert held[np.arange(40), truth].tolist() == sets.covers(of, truth).tolist()


def test_sets_of_a_higher_coverage_hold_those_of_a_lower() -> None:
    ensemble, predictions = world(15, 30)
    needed = ensemble.credible_level(predictions, drawn(16, ensemble, predictions))
    (ranking,) = rank(ensemble, predictions)
    half, most = (ConformalSets.marginal(needed, c).holds(ranking) for c in (0.5, 0.9))
    assert (half <= most).all()
    assert most.sum() > half.sum()


def test_p_values_of_true_claims_are_uniform_and_those_of_false_ones_small() -> None:
    ensemble, predictions = world(17, 4000)
    truth = drawn(18, ensemble, predictions)
    calibration = ensemble.credible_level(predictions, truth)[:2000]
    rest = {name: Probabilities(p.partition_hash, p.values[2000:]) for name, p in predictions.items()}
    true_claims = check_claims(ensemble, rest, truth[2000:], calibration)
    for level in (0.05, 0.2, 0.5):
        assert (true_claims.p_value <= level).mean() == pytest.approx(level, abs=0.04)
    elsewhere = np.random.default_rng(0).integers(0, ensemble.overlay.n_atoms, 2000)
    false_claims = check_claims(ensemble, rest, elsewhere, calibration)
    assert (false_claims.p_value <= 0.2).mean() > 0.25
    assert true_claims.area_km2 == pytest.approx(ensemble.area_to_truth_km2(rest, truth[2000:]))
    assert true_claims.p_value.min() >= 1 / 2001


def test_where_nothing_is_possible_nothing_is_excluded() -> None:
    maps = [np.array([[0, 0, 1, 1]] * 2), np.array([[0, 0, 1, 1]] * 2)]
    overlay, _ = overlay_of(maps, [2, 2])
    ensemble: Ensemble = ensemble_of(overlay)
    apart: dict[str, Probabilities] = {
        "model0": Probabilities("hash0", np.array([[1.0, 0.0]])),
        "model1": Probabilities("hash1", np.array([[0.0, 1.0]])),
    }
    needed = ensemble.credible_level(apart, [0])
    assert np.isnan(needed).all()
    sets = ConformalSets.marginal(np.linspace(0, 1, 50), 0.9)
    (ranking,) = rank(ensemble, apart)
    assert sets.holds(ranking).all()
    assert isinstance(overlay, Overlay)
    assert ensemble.area_to_truth_km2(apart, [0]) == pytest.approx(overlay.area_km2.sum())
    assert check_claims(ensemble, apart, [0], np.linspace(0, 1, 50)).p_value == pytest.approx(1.0)
