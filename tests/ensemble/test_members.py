"""The ensemble over atoms against the pixel algorithm."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from small_worlds import (
    ensemble_of,
    overlay_of,
    pixel_area,
    pixel_densities,
    random_maps,
    random_predictions,
)

from geosieve.ensemble.calibration import log_score
from geosieve.ensemble.members import Ensemble, EnsembleMember, Probabilities, mask_prior, prior
from geosieve.ensemble.ranking import rank
from geosieve.overlay.atoms import Overlay, OverlayPartition
from geosieve.runtime.errors import InputError

EARTH_KM2 = 4 * np.pi * 6371.0088**2
SEEDS = st.integers(0, 2**32 - 1)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(2, 24),
    regions=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    outside=st.sampled_from([0.0, 0.3]),
)
def test_the_area_needed_is_that_of_the_pixel_algorithm(
    seed: int, rows: int, regions: list[int], outside: float
) -> None:
    rng = np.random.default_rng(seed)
    maps = random_maps(rng, rows, regions, outside)
    overlay, grid = overlay_of(maps, regions)
    images = 5
    predictions = random_predictions(rng, regions, images)
    row, column = rng.integers(0, rows, images), rng.integers(0, 2 * rows, images)
    truth = grid.drawn(*grid.grid.centres(row, column))
    found = ensemble_of(overlay).area_to_truth_km2(predictions, truth)
    for i in range(images):
        product = pixel_densities(maps, [p.values[i] for p in predictions.values()])
        assert found[i] == pytest.approx(pixel_area(maps, product, row[i], column[i]), rel=1e-9)


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), regions=st.lists(st.integers(1, 9), min_size=1, max_size=3))
def test_atoms_rank_as_their_pixels_do(seed: int, regions: list[int]) -> None:
    rng = np.random.default_rng(seed)
    maps = random_maps(rng, 12, regions)
    overlay, grid = overlay_of(maps, regions)
    predictions = random_predictions(rng, regions, 1)
    scores = ensemble_of(overlay).scores(predictions)[0]
    product = pixel_densities(maps, [p.values[0] for p in predictions.values()])
    row, column = np.divmod(np.arange(12 * 24), 24)
    atoms = grid.drawn(*grid.grid.centres(row, column))
    assert np.exp(scores[atoms]) == pytest.approx(product.ravel(), rel=1e-9)


def test_a_single_member_needs_the_area_of_the_denser_regions() -> None:
    # Two hemispheres: three quarters of the probability is in the north, so the north comes first.
    overlay, grid = overlay_of([np.repeat([[0], [1]], 4, axis=1)], [2])
    predictions = {"model0": Probabilities("hash0", np.array([[0.75, 0.25]]))}
    ensemble = ensemble_of(overlay)
    assert ensemble.area_to_truth_km2(predictions, grid.drawn([45.0], [10.0])) == pytest.approx(
        [EARTH_KM2 / 2], rel=1e-12
    )
    assert ensemble.area_to_truth_km2(predictions, grid.drawn([-45.0], [10.0])) == pytest.approx([EARTH_KM2], rel=1e-12)


def test_equal_densities_count_as_reached() -> None:
    overlay, grid = overlay_of([np.repeat([[0], [1]], 4, axis=1)], [2])
    predictions = {"model0": Probabilities("hash0", np.array([[0.5, 0.5]]))}
    assert ensemble_of(overlay).area_to_truth_km2(predictions, grid.drawn([45.0], [0.0])) == pytest.approx([EARTH_KM2])


def test_outside_of_a_partition_nothing_has_a_density() -> None:
    overlay, grid = overlay_of([np.array([[0, 0, 1, -1], [0, 0, 1, -1]])], [2])
    predictions = {"model0": Probabilities("hash0", np.array([[0.5, 0.5]]))}
    ensemble = ensemble_of(overlay)
    # 0 covers half of the Earth and 1 a quarter: 1 is twice as dense. Outside comes last, and brings all of the Earth.
    at = grid.drawn([10.0, 10.0, 10.0], [45.0, -45.0, 135.0])
    doubled = {name: Probabilities(p.partition_hash, np.repeat(p.values, 3, axis=0)) for name, p in predictions.items()}
    assert ensemble.area_to_truth_km2(doubled, at) == pytest.approx(np.array([0.25, 0.75, 1.0]) * EARTH_KM2, rel=1e-12)


def _two_members() -> tuple[Ensemble, dict[str, Probabilities]]:
    rng = np.random.default_rng(3)
    regions = [6, 4]
    overlay, _ = overlay_of(random_maps(rng, 10, regions, 0.2), regions)
    return ensemble_of(overlay), random_predictions(rng, regions, 7)


def test_a_missing_prediction_says_nothing() -> None:
    ensemble, predictions = _two_members()
    one = Ensemble(ensemble.overlay, ensemble.members[:1])
    expected = one.scores({"model0": predictions["model0"]})
    assert ensemble.scores({"model0": predictions["model0"]}) == pytest.approx(expected)
    unknown = Probabilities("hash1", np.full((7, 4), np.nan))
    assert ensemble.scores({"model0": predictions["model0"], "model1": unknown}) == pytest.approx(expected)
    partly = predictions["model1"].values.copy()
    partly[3, 1] = np.nan
    mixed = ensemble.scores({**predictions, "model1": Probabilities("hash1", partly)})
    assert mixed[3] == pytest.approx(expected[3])
    assert mixed[2] == pytest.approx(ensemble.scores(predictions)[2])


def test_weight_zero_is_absence_and_temperature_flattens() -> None:
    ensemble, predictions = _two_members()
    first, second = ensemble.members
    without = Ensemble(ensemble.overlay, (first, EnsembleMember(second.name, second.partition, weight=0.0)))
    assert without.scores(predictions) == pytest.approx(ensemble.scores({"model0": predictions["model0"]}))
    # p^(1/2), normalised, by hand
    root = np.sqrt(predictions["model1"].values)
    by_hand = {**predictions, "model1": Probabilities("hash1", root / root.sum(axis=1, keepdims=True))}
    warm = Ensemble(ensemble.overlay, (first, EnsembleMember(second.name, second.partition, temperature=2.0)))
    assert warm.scores(predictions) == pytest.approx(ensemble.scores(by_hand))


def test_the_order_of_images_and_the_numbering_of_regions_change_nothing() -> None:
    rng = np.random.default_rng(11)
    regions = [8, 5]
    maps = random_maps(rng, 12, regions)
    overlay, grid = overlay_of(maps, regions)
    predictions = random_predictions(rng, regions, 20)
    lat, lon = rng.uniform(-90, 90, 20), rng.uniform(-180, 180, 20)
    expected = ensemble_of(overlay).area_to_truth_km2(predictions, grid.drawn(lat, lon))

    shuffled = rng.permutation(20)
    moved = {name: Probabilities(p.partition_hash, p.values[shuffled]) for name, p in predictions.items()}
    assert ensemble_of(overlay).area_to_truth_km2(moved, grid.drawn(lat[shuffled], lon[shuffled])) == pytest.approx(
        expected[shuffled], rel=1e-12
    )

    number = rng.permutation(8)
    renamed, renamed_grid = overlay_of([number[maps[0]], maps[1]], regions)
    values = np.empty_like(predictions["model0"].values)
    values[:, number] = predictions["model0"].values
    again = {**predictions, "model0": Probabilities("hash0", values)}
    assert ensemble_of(renamed).area_to_truth_km2(again, renamed_grid.drawn(lat, lon)) == pytest.approx(
        expected, rel=1e-12
    )


def test_more_probability_never_ranks_a_region_lower() -> None:
    overlay, grid = overlay_of([np.arange(32).reshape(4, 8)], [32])
    rng = np.random.default_rng(5)
    p = rng.dirichlet(np.ones(32))
    truth = grid.drawn([20.0], [20.0])
    region = int(overlay.labels[truth[0], 0])
    areas = []
    for share in (0.001, 0.01, 0.05, 0.2, 0.9):
        raised = np.where(np.arange(32) == region, 0.0, p)
        raised = raised / raised.sum() * (1 - share)
        raised[region] = share
        areas.append(
            float(ensemble_of(overlay).area_to_truth_km2({"model0": Probabilities("hash0", raised[None])}, truth)[0])
        )
    assert areas == sorted(areas, reverse=True)
    assert areas[-1] == pytest.approx(overlay.area_km2[truth[0]])


def test_a_mask_prior_keeps_the_order_within_its_regions() -> None:
    regions = [6, 4]
    rng = np.random.default_rng(8)
    overlay, _ = overlay_of(random_maps(rng, 10, regions), regions)
    prior = mask_prior(overlay, "urban", "p1", [2, 3])
    ensemble = Ensemble(overlay, (EnsembleMember("model0", "p0"), prior))
    predictions = {"model0": random_predictions(rng, regions, 1)["model0"]}
    scores = ensemble.scores(predictions)[0]
    base = Ensemble(overlay, (EnsembleMember("model0", "p0"),)).scores(predictions)[0]
    urban = np.isin(overlay.labels[:, 1], [2, 3])
    assert np.isneginf(scores[~urban]).all()
    difference = scores[urban] - base[urban]
    assert difference == pytest.approx(np.full(urban.sum(), difference[0]))


@settings(max_examples=40)
@given(seed=SEEDS, chosen=st.sets(st.integers(0, 29), min_size=1))
def test_a_mask_prior_needs_the_area_of_the_union_of_its_regions(seed: int, chosen: set[int]) -> None:
    """Its density is one number on the union, whatever the sizes of its regions."""
    rng = np.random.default_rng(seed)
    maps = random_maps(rng, 12, [30])
    overlay, grid = overlay_of(maps, [30])
    held = np.isin(maps[0], list(chosen))
    area = np.repeat(grid.grid.row_areas_km2()[:, None], 24, axis=1)
    truth = np.arange(overlay.n_atoms)
    assume(held.any())  # a region may have no pixel
    inside = np.isin(overlay.labels[:, 0], list(chosen))
    expected = np.where(inside, area[held].sum(), EARTH_KM2)
    mask = mask_prior(overlay, "urban", "p0", sorted(chosen))
    for weight in (1.0, 0.7):
        ensemble = Ensemble(overlay, (replace(mask, weight=weight),))
        assert ensemble.area_to_truth_km2({}, truth) == pytest.approx(expected, rel=1e-12)
        assert ensemble.mass_before({}, truth) == pytest.approx(np.where(inside, 0.0, 1.0))


@settings(max_examples=25)
@given(seed=SEEDS, n=st.integers(2, 200))
def test_a_mask_prior_has_one_density_to_the_last_bit(seed: int, n: int) -> None:
    """No tolerance is needed: quotients of areas and their sum, area by area, would be some ten different numbers."""
    rng = np.random.default_rng(seed)
    overlay, _ = overlay_of(random_maps(rng, 24, [n, 3]), [n, 3])
    area = overlay.region_areas_km2[0]
    mask = mask_prior(overlay, "urban", "p0", np.flatnonzero(area > 0)[: n // 2 + 1])
    for weight in (1.0, 0.7, 3.0):
        (factor,) = Ensemble(overlay, (replace(mask, weight=weight),)).factors({})[:]
        inside = np.isfinite(factor[0])
        assert np.unique(factor[0][inside]).size == 1
        held = area[inside[1:]].sum()
        assert factor[0][inside][0] == pytest.approx(-weight * np.log(held))


def test_the_mask_prior_of_all_published_cells_needs_the_area_of_their_union() -> None:
    """11,399 boxes from 243 km² on: a ranking by rounding stopped at some of them (147 of 252 M km², once)."""
    cells = Path(__file__).parents[3] / "shared" / "data" / "cells" / "osv5m_quadtree_10_1000.csv"
    if not cells.exists():
        pytest.skip("../shared/data is not there")
    boxes = pd.read_csv(cells)
    south, north = np.sin(np.radians(boxes[["min_lat", "max_lat"]].to_numpy())).T
    area = 6371.0088**2 * np.radians(boxes["max_lon"] - boxes["min_lon"]).to_numpy() * (north - south)
    labels = np.arange(-1, len(boxes))[:, None]
    none = np.zeros(len(labels))
    rest = EARTH_KM2 - area.sum()
    partitions = (OverlayPartition("osv5m", "hash", len(boxes)),)
    overlay = Overlay(partitions, labels, np.r_[rest, area], none, none, none)
    ensemble = Ensemble(overlay, (mask_prior(overlay, "seen", "osv5m", range(len(boxes))),))
    truth = np.arange(0, len(labels), 97)
    expected = np.where(truth > 0, area.sum(), EARTH_KM2)
    assert area.sum() == pytest.approx(280.694e6, rel=1e-5)
    assert ensemble.area_to_truth_km2({}, truth) == pytest.approx(expected, rel=1e-9)


def test_a_density_that_is_even_reaches_all_of_its_area_however_it_is_said() -> None:
    """Shares of people or of a model in proportion to areas: each region is as dense as the others."""
    rng = np.random.default_rng(2)
    overlay, _ = overlay_of(random_maps(rng, 12, [40, 3]), [40, 3])
    area, truth = overlay.region_areas_km2[0], np.arange(overlay.n_atoms)
    by_people = Ensemble(overlay, (prior("people", "p0", 7.3 * area),))
    assert by_people.area_to_truth_km2({}, truth) == pytest.approx([EARTH_KM2] * truth.size, rel=1e-12)
    shares = Probabilities("hash0", np.repeat(area[None] / area.sum(), truth.size, axis=0))
    model = Ensemble(overlay, (EnsembleMember("model0", "p0"),))
    assert model.area_to_truth_km2({"model0": shares}, truth) == pytest.approx([EARTH_KM2] * truth.size, rel=1e-12)


@settings(max_examples=25)
@given(seed=SEEDS, order=st.permutations(range(4)))
def test_neither_the_order_of_members_nor_the_way_of_summing_breaks_ties(seed: int, order: list[int]) -> None:
    """Three members that say the same few numbers of like maps: a sum of three terms occurs in every order."""
    rng = np.random.default_rng(seed)
    rows = np.kron(rng.integers(0, 3, (3, 6, 1)), np.ones((1, 1, 12), np.int64))
    maps = [*rows, np.arange(72).reshape(6, 12)]
    regions = [3, 3, 3, 72]
    overlay, _ = overlay_of(list(maps), regions)
    area = overlay.region_areas_km2
    weights = rng.choice([0.1, 0.3, 0.7], 3)
    alike = [prior(f"prior{k}", f"p{k}", np.where(area[k] > 0, weights * area[k], 0.0)) for k in range(3)]
    model = EnsembleMember("model3", "p3")
    said = {"model3": Probabilities("hash3", np.repeat(area[3][None] / EARTH_KM2, overlay.n_atoms, axis=0))}
    members, truth = (*alike, model), np.arange(overlay.n_atoms)
    expected = Ensemble(overlay, members).ranks(said, truth)
    moved = Ensemble(overlay, tuple(members[k] for k in order))
    assert moved.ranks(said, truth).tolist() == expected.tolist()
    (ranking,) = rank(moved, {"model3": Probabilities("hash3", said["model3"].values[:1])})
    # By hand: an atom's density is a product of three of three numbers; which ones, not in which order, decides.
    kinds = np.sort(weights[overlay.labels[:, :3]], axis=1)
    _, kind = np.unique(kinds, axis=0, return_inverse=True)
    product = np.array([kinds[kind == k][0].prod() for k in range(kind.max() + 1)])[kind.ravel()]
    assert expected.tolist() == (product[None] >= product[:, None]).sum(axis=1).tolist()
    by_hand = np.lexsort([np.arange(overlay.n_atoms), -product])
    assert ranking.atom[0].tolist() == by_hand.tolist()
    assert np.unique(ranking.log_density).size == np.unique(product).size


def test_images_are_taken_a_few_at_a_time(tmp_path: Path) -> None:
    """1,500 images of 3,000 regions are 18 MB in single precision and 36 MB as doubles; a chunk takes a few."""
    rng = np.random.default_rng(4)
    overlay, _ = overlay_of([np.arange(3042).reshape(39, 78) % 3000, random_maps(rng, 39, [4])[0]], [3000, 4])
    ensemble = Ensemble(overlay, (EnsembleMember("model0", "p0"), mask_prior(overlay, "urban", "p1", [1, 2])))
    p = rng.random((1500, 3000), np.float32)
    p /= p.sum(axis=1, keepdims=True)
    truth = rng.integers(0, overlay.n_atoms, 1500)
    np.save(tmp_path / "p.npy", p)
    few = Probabilities("hash0", p[:30].astype(np.float64))
    expected = ensemble.area_to_truth_km2({"model0": few}, truth[:30])
    for values in (p, np.load(tmp_path / "p.npy", mmap_mode="r")):
        given = {"model0": Probabilities("hash0", values)}
        for measure in (ensemble.area_to_truth_km2, ensemble.credible_level, partial(log_score, ensemble)):
            tracemalloc.start()
            found = measure(given, truth)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert peak < 24e6, measure
            if measure == ensemble.area_to_truth_km2:
                assert found[:30] == pytest.approx(expected, rel=1e-12)
        assert ensemble.missing(given) == {"model0": 0}
    p[1141] *= 2
    with pytest.raises(InputError, match="not 1 in sum") as error:
        ensemble.area_to_truth_km2({"model0": Probabilities("hash0", p)}, truth)
    assert "row 1141" in str(error.value)


@pytest.mark.parametrize(
    ("values", "digest", "says"),
    [
        ([[0.5, 0.4, 0.0, 0.0]], "hash1", "not 1 in sum"),
        ([[1.2, -0.2, 0.0, 0.0]], "hash1", "negative"),
        ([[np.inf, 0.0, 0.0, 0.0]], "hash1", "infinite"),
        ([[0.5, 0.5]], "hash1", r"shape \(1, 2\), not \(images, 4\)"),
        ([[0.25, 0.25, 0.25, 0.25]], "hash0", "is over partition hash0"),
    ],
)
def test_probabilities_that_are_none_are_refused(values: list[list[float]], digest: str, says: str) -> None:
    ensemble, _ = _two_members()
    with pytest.raises(InputError, match=says):
        ensemble.scores({"model1": Probabilities(digest, np.array(values))})


def test_unknown_members_and_unequal_numbers_of_images_are_refused() -> None:
    ensemble, predictions = _two_members()
    with pytest.raises(InputError, match="no member other"):
        ensemble.scores({"other": predictions["model0"]})
    fewer = Probabilities("hash1", predictions["model1"].values[:3])
    with pytest.raises(InputError, match=r"different numbers of images: \[3, 7\]"):
        ensemble.scores({**predictions, "model1": fewer})
    with pytest.raises(KeyError, match="partition 'p9' is not in the overlay"):
        Ensemble(ensemble.overlay, (EnsembleMember("x", "p9"),))


def test_predictions_and_truth_are_of_the_same_images() -> None:
    rng = np.random.default_rng(3)
    overlay, _ = overlay_of(random_maps(rng, 8, [3, 2]), [3, 2])
    ensemble, predictions = ensemble_of(overlay), random_predictions(rng, [3, 2], 5)
    for truth, says in (
        ([0, 1], "of 5 images, true positions of 2"),
        ([0] * 7, "of 5 images, true positions of 7"),
        ([0, 0, 0, 0, -1], "must be 0 to"),
        ([0, 0, 0, 0, overlay.n_atoms], "must be 0 to"),
    ):
        with pytest.raises(InputError, match=says):
            ensemble.area_to_truth_km2(predictions, truth)


def test_without_any_prediction_all_images_need_what_the_priors_say() -> None:
    rng = np.random.default_rng(3)
    overlay, _ = overlay_of(random_maps(rng, 8, [3, 2]), [3, 2])
    area = overlay.region_areas_km2[1]
    alone = Ensemble(overlay, (mask_prior(overlay, "urban", "p1", [0]),))
    inside = int(np.flatnonzero(overlay.labels[:, 1] == 0)[0])
    assert alone.area_to_truth_km2({}, [inside] * 4) == pytest.approx([area[0]] * 4)
    assert ensemble_of(overlay).area_to_truth_km2({}, [0, 1]) == pytest.approx([EARTH_KM2] * 2)


def test_missing_predictions_are_counted() -> None:
    rng = np.random.default_rng(3)
    overlay, _ = overlay_of(random_maps(rng, 8, [3, 2]), [3, 2])
    predictions = random_predictions(rng, [3, 2], 5)
    predictions["model0"].values[[1, 4], 0] = np.nan
    del predictions["model1"]
    assert ensemble_of(overlay).missing(predictions) == {"model0": 2, "model1": 5}


def test_a_prior_of_weights_is_a_member_that_always_says_them() -> None:
    rng = np.random.default_rng(3)
    overlay, _ = overlay_of(random_maps(rng, 8, [3, 2]), [3, 2])
    people = np.array([2.0, 6.0])
    with_prior = Ensemble(overlay, (*ensemble_of(overlay).members[:1], prior("people", "p1", people)))
    predictions = random_predictions(rng, [3, 2], 5)
    same = {**predictions, "model1": Probabilities("hash1", np.tile(people / 8, (5, 1)))}
    truth = rng.integers(0, overlay.n_atoms, 5)
    del predictions["model1"]
    assert (
        with_prior.area_to_truth_km2(predictions, truth).tolist()
        == ensemble_of(overlay).area_to_truth_km2(same, truth).tolist()
    )


def test_a_prior_without_area_or_of_no_region_is_refused() -> None:
    overlay, _ = overlay_of([np.zeros((4, 8), np.int64)], [3])  # regions 1 and 2 have no pixel
    with pytest.raises(ValueError, match="one of them above 0"):
        mask_prior(overlay, "urban", "p0", [1, 2])
    for regions in ([-1], [3]):
        with pytest.raises(ValueError, match="are 0 to 2"):
            mask_prior(overlay, "urban", "p0", regions)
    with pytest.raises(ValueError, match="not finite"):
        EnsembleMember("urban", "p0", fixed=(np.nan, 0.5, 0.5))
    with pytest.raises(ValueError, match="only a prior"):
        EnsembleMember("model", "p0", density=(0.5, 0.5, 0.5))
