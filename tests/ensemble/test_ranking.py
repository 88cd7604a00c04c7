"""Ranked regions: budgets, best points, entropy, coarse answers and patches, against pixels looked at one by one."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pyproj import Geod
from small_worlds import ensemble_of, overlay_of, pixel_densities, random_maps, random_predictions

from geosieve.ensemble.members import Ensemble, EnsembleMember, Probabilities
from geosieve.ensemble.patches import patches
from geosieve.ensemble.ranking import Ranking, coarse_regions, coarsen, rank
from geosieve.overlay.atoms import AtomGrid, Overlay, OverlayPartition
from geosieve.reporting.regions import draw_regions
from geosieve.runtime.errors import InputError

EARTH_KM2 = 4 * math.pi * 6371.0088**2
SEEDS = st.integers(0, 2**32 - 1)


def a_ranking(seed: int, images: int = 3) -> tuple[Ranking, AtomGrid, list[NDArray[np.int64]], list[NDArray]]:
    """Of random predictions over two random maps: also the grid, the maps and each image's pixel densities."""
    rng = np.random.default_rng(seed)
    regions = [5, 3]
    maps = random_maps(rng, 12, regions, outside=0.1)
    overlay, grid = overlay_of(maps, regions)
    predictions = random_predictions(rng, regions, images)
    (ranking,) = rank(ensemble_of(overlay), predictions)
    densities = [pixel_densities(maps, [p.values[i] for p in predictions.values()]) for i in range(images)]
    return ranking, grid, maps, densities


def pixel_areas(grid: AtomGrid) -> NDArray[np.float64]:
    return np.repeat(grid.grid.row_areas_km2()[:, None], grid.grid.cols, axis=1)


def atom_of_pixels(grid: AtomGrid) -> NDArray[np.int64]:
    row, column = np.indices((grid.grid.rows, grid.grid.cols))
    return grid.drawn(*grid.grid.centres(row, column))


@settings(max_examples=25)
@given(seed=SEEDS)
def test_probabilities_are_those_of_the_pixels(seed: int) -> None:
    ranking, grid, _, densities = a_ranking(seed)
    area, atoms = pixel_areas(grid), atom_of_pixels(grid)
    for i, density in enumerate(densities):
        mass = density * area
        expected = np.bincount(atoms.ravel(), mass.ravel() / mass.sum())
        assert ranking.probability[i] == pytest.approx(expected[ranking.atom[i]], abs=1e-12)
        assert (ranking.log_density[i, 1:] <= ranking.log_density[i, :-1]).all()


@settings(max_examples=25)
@given(seed=SEEDS, share=st.floats(0.01, 0.999), budget=st.floats(1e5, 4e8))
def test_a_budget_is_filled_and_not_exceeded(seed: int, share: float, budget: float) -> None:
    ranking, *_ = a_ranking(seed)
    by_area, by_mass = ranking.within_area(budget), ranking.within_mass(share)
    for i in range(len(ranking.atom)):
        area, mass = ranking.area_km2[i], ranking.probability[i]
        assert area[: by_area[i]].sum() <= budget
        assert by_area[i] == area.size or area[: by_area[i] + 1].sum() > budget
        assert mass[: by_mass[i]].sum() >= share
        assert mass[: by_mass[i] - 1].sum() < share


def test_larger_budgets_hold_the_sets_of_smaller_ones() -> None:
    ranking, *_ = a_ranking(1)
    for counts in (
        [ranking.within_area(budget) for budget in (0, 1e6, 1e7, 1e8, 6e8)],
        [ranking.within_mass(share) for share in (0.1, 0.5, 0.9, 1.0)],
    ):
        assert (np.diff(np.stack(counts), axis=0) >= 0).all()  # leading atoms: more of them hold the fewer
    assert (ranking.within_area(0) == 0).all()
    assert (ranking.within_area(EARTH_KM2 * 1.001) == ranking.overlay.n_atoms).all()


def test_equally_dense_atoms_keep_the_order_of_their_numbers() -> None:
    overlay, _ = overlay_of([np.arange(2 * 6 * 6).reshape(6, 12)], [72])
    uniform = overlay.region_areas_km2[0] / EARTH_KM2
    (ranking,) = rank(ensemble_of(overlay), {"model0": Probabilities("hash0", np.full((1, 72), 1 / 72))})
    assert ranking.area_km2[0][0] == pytest.approx(uniform.min() * EARTH_KM2)  # the same share on the least area
    polar = ranking.atom[0, :24]  # the first and the last row are as dense as each other
    assert polar.tolist() == [*range(12), *range(60, 72)]


def test_entropy_is_the_logarithm_of_the_area_where_the_density_is_even() -> None:
    overlay, _ = overlay_of([np.repeat([[0] * 12, [1] * 12], 3, axis=0)], [2])
    p = np.array([[0.5, 0.5], [1.0, 0.0]])
    (ranking,) = rank(ensemble_of(overlay), {"model0": Probabilities("hash0", p)})
    assert np.exp(ranking.entropy()) == pytest.approx([EARTH_KM2, EARTH_KM2 / 2])


@settings(max_examples=10)
@given(seed=SEEDS)
def test_the_expected_distance_is_least_at_the_chosen_point(seed: int) -> None:
    ranking, *_ = a_ranking(seed, images=2)
    overlay, sphere = ranking.overlay, Geod(a=6371008.8, b=6371008.8)
    lat, lon, km = ranking.expected_distance_point(candidates=overlay.n_atoms)
    n = overlay.n_atoms
    metres = np.stack(
        [
            sphere.inv(np.full(n, overlay.lon[a]), np.full(n, overlay.lat[a]), overlay.lon, overlay.lat)[2]
            for a in range(n)
        ]
    )
    for i in range(2):
        p = np.empty(n)
        p[ranking.atom[i]] = ranking.probability[i]
        expected = metres @ p / 1000
        assert km[i] == pytest.approx(expected.min(), rel=1e-6)
        best = int(np.argmin(expected))
        assert (lat[i], lon[i]) == pytest.approx((overlay.lat[best], overlay.lon[best]))


def test_the_best_point_is_the_centroid_of_the_densest_atom() -> None:
    ranking, grid, _, densities = a_ranking(5)
    lat, lon = ranking.best_point()
    atoms = atom_of_pixels(grid)
    for i, density in enumerate(densities):
        densest = atoms.ravel()[np.argmax(density)]
        assert (lat[i], lon[i]) == (ranking.overlay.lat[densest], ranking.overlay.lon[densest])


def test_where_members_exclude_each_other_there_is_no_answer() -> None:
    overlay, _ = overlay_of([np.repeat([[0] * 12, [1] * 12], 3, axis=0)] * 2, [2, 2])
    contrary = {
        "model0": Probabilities("hash0", np.array([[1.0, 0.0]])),
        "model1": Probabilities("hash1", np.array([[0.0, 1.0]])),
    }
    (ranking,) = rank(ensemble_of(overlay), contrary)
    assert np.isnan(ranking.probability).all()
    assert ranking.within_mass(0.5).tolist() == [0]
    assert np.isnan(ranking.best_point()).all()
    assert np.isnan(ranking.expected_distance_point()).all()


def test_an_atom_without_area_takes_no_probability() -> None:
    partitions = (OverlayPartition("p", "hash", 2),)
    area = np.array([0.0, 100.0, 300.0])
    overlay = Overlay(partitions, np.array([[0], [0], [1]]), area, *(np.zeros(3) for _ in range(3)))
    (ranking,) = rank(
        Ensemble(overlay, (EnsembleMember("m", "p"),)), {"m": Probabilities("hash", np.array([[0.5, 0.5]]))}
    )
    assert dict(zip(ranking.atom[0].tolist(), ranking.probability[0].tolist(), strict=True)) == pytest.approx(
        {0: 0.0, 1: 0.5, 2: 0.5}
    )


@pytest.mark.parametrize("least", [1.0, 1e6, 2e7, 1e8, 5e8])
def test_coarse_regions_are_large_enough_and_keep_large_atoms(least: float) -> None:
    ranking, *_ = a_ranking(3)
    area = ranking.overlay.area_km2
    region = coarse_regions(ranking.overlay, least)
    found = np.bincount(region, area)
    assert (found >= least).all()
    assert found.sum() == pytest.approx(area.sum())
    if least == 1.0:
        assert np.unique(region).size == area.size


def test_an_overlay_smaller_than_a_coarse_region_is_refused() -> None:
    ranking, *_ = a_ranking(3)
    with pytest.raises(ValueError, match="less than a region"):
        coarse_regions(ranking.overlay, 6e8)


@settings(max_examples=15)
@given(seed=SEEDS, least=st.sampled_from([1e6, 2e7, 1e8]))
def test_a_coarse_answer_has_the_probability_and_area_of_its_atoms(seed: int, least: float) -> None:
    ranking, *_ = a_ranking(seed, images=2)
    region = coarse_regions(ranking.overlay, least)
    coarse = coarsen(ranking, region)
    assert (coarse.area_km2 >= least).all()
    assert (coarse.log_density[:, 1:] <= coarse.log_density[:, :-1]).all()
    for i in range(2):
        expected = np.zeros(region.max() + 1)
        for atom, p in zip(ranking.atom[i], ranking.probability[i], strict=True):
            expected[region[atom]] += p
        assert coarse.probability[i] == pytest.approx(expected[coarse.atom[i]])
        area = np.bincount(region, ranking.overlay.area_km2)
        assert np.exp(coarse.log_density[i]) == pytest.approx(expected[coarse.atom[i]] / area[coarse.atom[i]])
    if least == 1e8:
        assert coarse.within_area(1e7).tolist() == [0, 0]


def test_a_coarse_overlay_has_a_hash_of_its_own_and_no_pixels_of_its_atoms() -> None:
    ranking, grid, *_ = a_ranking(3)
    region = coarse_regions(ranking.overlay, 2e7)
    coarse = coarsen(ranking, region)
    swapped = np.where(region < 2, 1 - region, region)  # the same regions, numbered otherwise
    other = replace(ranking, overlay=replace(ranking.overlay, digest="of another overlay"))
    made = [coarse, coarsen(ranking, coarse_regions(ranking.overlay, 1e8)), coarsen(ranking, swapped)]
    made.append(coarsen(other, region))
    assert len({one.overlay.digest for one in (ranking, *made)}) == 5
    assert coarsen(ranking, region).overlay.digest == coarse.overlay.digest
    with pytest.raises(InputError, match="atoms mean something only in their own overlay"):
        patches(coarse, grid, 0, 1)


def labelled_on_the_sphere(chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
    """scipy's connected patches of a global grid: a row ends where it began."""
    label, n = scipy.ndimage.label(chosen)
    root = np.arange(n + 1)
    for west, east in zip(label[:, 0], label[:, -1], strict=True):
        if west and east:
            root[root == root[east]] = root[west]
    return root[label]


@settings(max_examples=40)
@given(seed=SEEDS, n=st.integers(1, 12))
def test_patches_are_the_connected_pixels_of_the_answer(seed: int, n: int) -> None:
    ranking, grid, _, _ = a_ranking(seed, images=1)
    area, atoms = pixel_areas(grid), atom_of_pixels(grid)
    label = labelled_on_the_sphere(np.isin(atoms, ranking.atom[0, :n]))
    density = np.empty(ranking.overlay.n_atoms)
    density[ranking.atom[0]] = np.exp(ranking.log_density[0])
    inside = label > 0
    _, patch = np.unique(label[inside], return_inverse=True)
    expected_area = np.bincount(patch, area[inside])
    expected_mass = np.bincount(patch, (area * density[atoms])[inside])
    found = patches(ranking, grid, 0, n)
    assert np.sort(found.area_km2) == pytest.approx(np.sort(expected_area))
    assert np.sort(found.probability) == pytest.approx(np.sort(expected_mass))
    assert found.probability.sum() == pytest.approx(ranking.probability[0, : min(n, ranking.overlay.n_atoms)].sum())


def test_a_patch_across_the_antimeridian_is_one() -> None:
    layer = np.zeros((6, 12), np.int64)
    layer[2, [0, 11]] = 1
    layer[4, 5] = 1  # a second part of the same region, apart from the first
    overlay, grid = overlay_of([layer], [2])
    (ranking,) = rank(ensemble_of(overlay), {"model0": Probabilities("hash0", np.array([[0.0, 1.0]]))})
    found = patches(ranking, grid, 0, 1)
    assert len(found) == 2
    across = int(np.argmax(found.area_km2))
    assert (found.west[across], found.east[across]) == (150.0, -150.0)
    assert abs(found.lon[across]) == pytest.approx(180.0)
    assert (found.south[across], found.north[across]) == (0.0, 30.0)
    assert found.probability.sum() == pytest.approx(1.0)


def test_patches_of_nothing_and_of_everything() -> None:
    ranking, grid, *_ = a_ranking(4, images=1)
    assert len(patches(ranking, grid, 0, 0)) == 0
    (whole,) = patches(ranking, grid, 0, 10**6).area_km2
    assert whole == pytest.approx(EARTH_KM2)


@pytest.mark.parametrize("p", [[0.97, 0.01, 0.01, 0.01], [0.25] * 4])
def test_sure_and_unsure_images_are_drawn(p: list[float], tmp_path: Path) -> None:
    overlay, grid = overlay_of([np.repeat(np.arange(4), 18).reshape(6, 12)], [4])
    (ranking,) = rank(ensemble_of(overlay), {"model0": Probabilities("hash0", np.array([p]))})
    draw_regions(ranking, grid, tmp_path / "map.png", (10.0, 20.0), "synthetic")
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")


def test_regions_on_both_sides_of_the_antimeridian_lie_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Atoms around 165 W and 165 E and a truth at 179 E: 30 degrees of longitude, and a margin."""
    columns = np.full((6, 12), 2)
    columns[:, 0], columns[:, -1] = 0, 1
    overlay, grid = overlay_of([columns], [3])
    (ranking,) = rank(ensemble_of(overlay), {"model0": Probabilities("hash0", np.array([[0.5, 0.5, 0.0]]))})
    drawn: list[Any] = []
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda figure, *_, **__: drawn.append(figure.axes[0]))
    draw_regions(ranking, grid, tmp_path / "map.png", (0.0, 179.0), "synthetic")
    assert drawn[0].get_xlim() == pytest.approx((162.5, 197.5))
    level = drawn[0].images[0].get_array()
    assert set(np.unique(level)) <= {0, 1}  # both regions, and nothing of the third


def test_torch_ranks_as_numpy_does() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    rng = np.random.default_rng(2)
    overlay, _ = overlay_of(random_maps(rng, 24, [20, 5]), [20, 5])
    predictions = random_predictions(rng, [20, 5], 50)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    (plain,), (other,) = (rank(ensemble_of(overlay), predictions, device=d) for d in (None, device))
    assert (plain.atom == other.atom).all()
    assert plain.probability == pytest.approx(other.probability, rel=1e-9)
