"""The leading atoms of each image are those of the full ranking."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_worlds import ensemble_of, overlay_of, random_maps, random_predictions

from geosieve.ensemble import leading
from geosieve.ensemble.conformal import mass_at
from geosieve.ensemble.leading import ScoredImages, scored
from geosieve.ensemble.members import Ensemble, EnsembleMember, Predictions, Probabilities
from geosieve.ensemble.ranking import Ranking, rank

SEEDS = st.integers(0, 2**32 - 1)


def a_world(seed: int, images: int = 3, regions: tuple[int, ...] = (40, 5, 3)) -> tuple[Ensemble, Predictions]:
    rng = np.random.default_rng(seed)
    overlay, _ = overlay_of(random_maps(rng, 16, list(regions), outside=0.1), list(regions))
    return ensemble_of(overlay), random_predictions(rng, list(regions), images)


def both(ensemble: Ensemble, predictions: Predictions) -> tuple[ScoredImages, Ranking]:
    (some,) = scored(ensemble, predictions)
    (ranking,) = rank(ensemble, predictions)
    return some, ranking


def same_beginning(found: leading.Leading, ranking: Ranking, image: int) -> None:
    n = len(found.atom)
    assert (found.atom == ranking.atom[image, :n]).all()
    assert found.probability == pytest.approx(ranking.probability[image, :n], rel=1e-9, abs=0)
    assert found.log_density == pytest.approx(ranking.log_density[image, :n], abs=1e-9)
    assert (found.area_km2 == ranking.area_km2[image, :n]).all()
    if n < ranking.atom.shape[1]:  # ties are complete
        assert n == 0 or ranking.log_density[image, n - 1] > ranking.log_density[image, n]
    assert not (found.complete and ranking.probability[image, n:].any())


@settings(max_examples=40)
@given(
    seed=SEEDS,
    mass=st.floats(0, 1),
    regions=st.integers(0, 200),
    part=st.floats(0, 1.2),
    steps=st.sampled_from([1e-3, 1, 8, 1e4]),
)
def test_they_are_the_beginning_of_the_ranking(seed: int, mass: float, regions: int, part: float, steps: float) -> None:
    """Also if scores are counted so coarsely that all are in one step, or so finely that most are in the last."""
    ensemble, predictions = a_world(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leading, "_STEPS", steps)
        check_beginning(ensemble, predictions, mass, part, regions)


def check_beginning(ensemble: Ensemble, predictions: Predictions, mass: float, part: float, regions: int) -> None:
    some, ranking = both(ensemble, predictions)
    budget = part * ensemble.overlay.area_km2.sum()
    for image in range(3):
        found = some.leading(image, mass, budget, regions)
        same_beginning(found, ranking, image)
        assert found.complete or (
            len(found.atom) >= regions and found.probability.sum() >= mass and found.area_km2.sum() > budget
        )


@settings(max_examples=25)
@given(seed=SEEDS, share=st.floats(0.01, 0.99))
def test_cuts_and_summaries_are_those_of_the_ranking(seed: int, share: float) -> None:
    ensemble, predictions = a_world(seed)
    some, ranking = both(ensemble, predictions)
    budget = share * ensemble.overlay.area_km2.sum()
    lat, lon, km = ranking.expected_distance_point(20)
    for image in range(3):
        assert some.leading(image, mass=share).within_mass(share) == ranking.within_mass(share)[image]
        held = int((np.cumsum(ranking.area_km2[image]) <= budget).sum())
        nowhere = ranking.probability[image] == 0  # atoms without a density are in no answer
        assert some.leading(image, area_km2=budget).within_area(budget) == min(held, int((~nowhere).sum()))
        found = some.leading(image, mass=share)
        assert found.mass_at() == pytest.approx(mass_at(ranking)[image, : len(found.atom)], rel=1e-9)
        assert some.best_point(image, 20) == pytest.approx((lat[image], lon[image], km[image]), abs=1e-6)
        assert some.entropy[image] == pytest.approx(ranking.entropy()[image], abs=1e-8)
        in_cells = np.bincount(
            ensemble.structure.cell[ranking.atom[image]], ranking.probability[image], some.cell_mass.shape[1]
        )
        assert some.cell_mass[image] == pytest.approx(in_cells, abs=1e-12)


def test_ties_stay_together_in_the_order_of_the_atoms() -> None:
    """Every image has two levels of density: half of the cells are thrice as dense as the others."""
    ensemble, _ = a_world(3, regions=(40, 3))
    area = ensemble.overlay.region_areas_km2[0]
    p = np.where(np.arange(40) % 2, 3.0, 1.0) * area
    predictions = {"model0": Probabilities("hash0", (p / p.sum())[None])}
    some, ranking = both(ensemble, predictions)
    found = some.leading(0, regions=1)
    same_beginning(found, ranking, 0)
    dense = np.isin(ensemble.overlay.labels[:, 0], np.arange(1, 40, 2))
    assert sorted(found.atom) == np.flatnonzero(dense).tolist() and (np.diff(found.atom) > 0).all()


@pytest.mark.parametrize("regions", [1, 30, 100])
def test_densities_that_differ_by_rounding_are_ties(regions: int) -> None:
    """All cells have the same density, computed in two ways whose last digits differ."""
    ensemble, _ = a_world(4, regions=(40, 3))
    area = ensemble.overlay.region_areas_km2[0]
    p = area / area.sum() * np.where(np.arange(40) % 2, 1 + 1e-12, 1.0)
    q = ensemble.overlay.region_areas_km2[1] * [1.0, 1.0, 5.0]
    given = {"model0": Probabilities("hash0", p[None]), "model1": Probabilities("hash1", (q / q.sum())[None])}
    some, ranking = both(ensemble, given)
    same_beginning(some.leading(0, regions=regions), ranking, 0)


def exclusive(seed: int) -> tuple[Ensemble, Predictions]:
    """A base predictor and an attribute that leave the other's best regions next to nothing, as float32 can say it."""
    ensemble, _ = a_world(seed, 1, (40, 3))
    labels = ensemble.overlay.labels
    cell = int(labels[labels[:, 0] >= 0, 0][0])
    beside = np.setdiff1d(np.arange(3), labels[labels[:, 0] == cell, 1])
    p, q = np.full(40, 1e-300), np.full(3, 1e-300)
    p[cell], q[beside[0] if beside.size else 0] = 1.0, 1.0
    return ensemble, {"model0": Probabilities("hash0", p[None]), "model1": Probabilities("hash1", q[None])}


@pytest.mark.parametrize("seed", range(8))
def test_members_that_all_but_exclude_each_other(seed: int) -> None:
    some, ranking = both(*exclusive(seed))
    found = some.leading(0, mass=1.0)
    same_beginning(found, ranking, 0)
    assert found.probability.sum() == pytest.approx(1)
    assert some.entropy[0] == pytest.approx(ranking.entropy()[0], abs=1e-8)


def test_without_any_density_there_is_no_answer() -> None:
    overlay, _ = overlay_of([np.repeat([[0, 1, 2, 3]], 2, axis=0), np.repeat([[0, 0, 1, 1]], 2, axis=0)], [4, 2])
    members = (EnsembleMember("a", "p0"), EnsembleMember("b", "p1"))
    given: dict[str, Any] = {"a": [[1.0, 0, 0, 0]], "b": [[0.0, 1.0]]}
    predictions = {name: Probabilities(f"hash{k}", np.array(p)) for k, (name, p) in enumerate(given.items())}
    (some,) = scored(Ensemble(overlay, members), predictions)
    found = some.leading(0, mass=0.5, regions=3)
    assert not found.atom.size and found.complete and found.within_mass(0.5) == 0
    assert np.isnan([some.entropy[0], some.log_total[0], *some.best_point(0)]).all()
    assert not some.cell_mass.any()


def test_a_missing_prediction_says_nothing() -> None:
    ensemble, predictions = a_world(5)
    for name in predictions:
        predictions[name].values[1] = np.nan
    some, ranking = both(ensemble, predictions)
    for image in range(3):
        same_beginning(some.leading(image, mass=0.9), ranking, image)
