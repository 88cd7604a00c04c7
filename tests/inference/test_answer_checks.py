"""The tests of answers, claimed positions and vagueness, against a loop over pixels; and atoms of mixed pixels."""

from __future__ import annotations

import numpy as np
import pytest
from small_worlds import ensemble_of, overlay_of, pixel_densities, random_maps, random_predictions

from geosieve.geo.grid import EqualAngleGrid
from geosieve.inference.artefact import Calibration
from geosieve.inference.looking import Checks
from geosieve.overlay.atoms import AtomGrid

REGIONS, IMAGES = [5, 3], 30


@pytest.mark.parametrize("seed", range(3))
def test_a_claim_is_compared_with_calibration_images(seed: int) -> None:
    rng = np.random.default_rng(seed)
    maps = random_maps(rng, 12, REGIONS)
    overlay, grid = overlay_of(maps, REGIONS)
    predictions = random_predictions(rng, REGIONS, IMAGES)
    levels = rng.uniform(size=99)
    checks = Checks(Calibration(levels, np.empty(0)), 0.1, None, grid)
    lat, lon = rng.uniform(-90, 90, IMAGES), rng.uniform(-180, 180, IMAGES)
    lat[3] = lon[3] = np.nan
    found = checks.claims(ensemble_of(overlay), predictions, lat, lon)
    density = np.stack([pixel_densities(maps, [p.values[k] for p in predictions.values()]) for k in range(IMAGES)])
    area = np.broadcast_to(grid.grid.row_areas_km2()[:, None], density.shape[1:])
    for image in range(IMAGES):
        if image == 3:
            assert np.isnan(found[3])
            continue
        row, column = (int(of) for of in grid.grid.pixels(lat[image], lon[image]))
        at = density[image, row, column]
        mass = density[image] * area
        needed = mass[density[image] >= at * (1 - 1e-9)].sum() / mass.sum()
        assert found[image] == pytest.approx((1 + (levels >= needed - 1e-9).sum()) / 100)


def test_in_a_mixed_pixel_the_atom_that_fits_best_counts() -> None:
    rng = np.random.default_rng(0)
    maps = random_maps(rng, 2, REGIONS)
    overlay, _ = overlay_of(maps, REGIONS)
    predictions = random_predictions(rng, REGIONS, 1)
    ensemble, levels = ensemble_of(overlay), np.linspace(0, 1, 50)
    n = overlay.n_atoms
    needed = [ensemble.credible_level(predictions, np.array([atom]))[0] for atom in range(n)]
    p = [(1 + (levels >= level - 1e-9).sum()) / 51 for level in needed]
    least = int(np.argmin(p))
    assert max(p) > p[least]
    # Pixel (0, 0) belongs to all atoms, the others to the one that fits worst.
    mixed = AtomGrid(EqualAngleGrid(2, 4), np.array([0] * n + [1]), np.array([*range(n), least]), np.ones(n + 1))
    checks = Checks(Calibration(levels, np.empty(0)), 0.1, None, mixed)
    assert checks.claims(ensemble, predictions, np.array([80.0]), np.array([-170.0]))[0] == pytest.approx(max(p))
    assert checks.claims(ensemble, predictions, np.array([-80.0]), np.array([0.0]))[0] == pytest.approx(p[least])
    counts, atoms = mixed.at([80.0, -80.0], [-170.0, 0.0])
    assert counts.tolist() == [n, 1] and atoms.tolist() == [*range(n), least]


def test_vagueness_is_the_rank_of_the_entropy() -> None:
    checks = Checks(Calibration(np.empty(0), np.array([1.0, 2.0, 3.0, np.nan])), None, 0.1, None)
    # Of five, the image itself and those that are at least as vague; one without any density is the vaguest.
    assert checks.domain(np.array([0.5, 2.0, 2.5, np.nan])).tolist() == [5 / 5, 4 / 5, 3 / 5, 2 / 5]


@pytest.mark.parametrize("level", [0.05, 0.3])
def test_few_images_like_those_of_the_calibration_are_flagged(level: float) -> None:
    rng = np.random.default_rng(1)
    flagged = []
    for _ in range(300):
        entropy = rng.gamma(2.0, size=60)
        flagged.append(Checks(Calibration(np.empty(0), entropy[1:]), None, level, None).domain(entropy[:1])[0] < level)
    assert np.mean(flagged) <= level + 3 * np.sqrt(level * (1 - level) / 300)
