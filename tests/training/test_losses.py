"""Losses: values from their formulas in plain Python, and gradients from finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from geosieve.geo.sphere import haversine_km
from geosieve.training import losses
from geosieve.training.schedule import Cosine, Steps

LABELS = torch.tensor([2, -1, 0, 4, -3])
CENTRES = torch.tensor([[0.0, 179.9], [0.1, -179.9], [48.9, 2.3], [-33.9, 151.2], [90.0, 0.0]])
POSITIONS = torch.tensor([[48.0, 2.0], [0.0, 0.0], [0.0, -179.95], [89.0, 77.0], [1.0, 1.0]], dtype=torch.float64)


def logits() -> torch.Tensor:
    return torch.tensor(np.random.default_rng(0).normal(0, 2, (5, 5)), dtype=torch.float32, requires_grad=True)


def targets() -> torch.Tensor:
    return losses.haversine_targets(POSITIONS, LABELS, CENTRES, 5_000.0)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("soft", [False, True])
def test_cross_entropy_is_its_formula(smoothing: float, soft: bool) -> None:
    found = losses.cross_entropy(logits(), LABELS, smoothing, targets() if soft else None)
    expected = 0.0
    for row, (values, label) in enumerate(zip(logits().tolist(), LABELS.tolist(), strict=True)):
        if label < 0:
            continue
        log_p = [value - math.log(sum(math.exp(other) for other in values)) for value in values]
        own = -log_p[label]
        if soft:
            lat, lon = POSITIONS[row].tolist()
            away = [float(haversine_km(lat, lon, *centre)) for centre in CENTRES.double().tolist()]
            own = -sum(math.exp(-(away[k] - away[label]) / 5_000) * log_p[k] for k in range(5))
        expected += (1 - smoothing) * own - smoothing * sum(log_p) / 5
    assert float(found) == pytest.approx(expected / 5, rel=1e-5)  # images without a region count in the mean


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("soft", [False, True])
def test_gradients_are_finite_differences(smoothing: float, soft: bool) -> None:
    given, step = logits(), 1e-2
    losses.cross_entropy(given, LABELS, smoothing, targets() if soft else None).backward()
    assert given.grad is not None
    for row in range(5):
        for column in range(5):
            sides = []
            for sign in (1, -1):
                moved = logits().detach().clone()
                moved[row, column] += sign * step
                sides.append(float(losses.cross_entropy(moved, LABELS, smoothing, targets() if soft else None)))
            assert float(given.grad[row, column]) == pytest.approx((sides[0] - sides[1]) / (2 * step), abs=1e-4)


def test_targets_by_distance_are_one_at_the_label_and_cross_the_date_line() -> None:
    found = targets()
    assert found[2].tolist()[0] == pytest.approx(1)  # the label's own region
    assert found[2].tolist()[1] == pytest.approx(1, abs=0.01)  # 12 km away, beyond the date line
    assert found[2].tolist()[2] < 0.1


def test_a_batch_of_two_ranks_is_their_mean() -> None:
    whole = losses.cross_entropy(logits()[:4], LABELS[:4])
    halves = [losses.cross_entropy(logits()[a:b], LABELS[a:b]) for a, b in ((0, 2), (2, 4))]
    assert float(whole) == pytest.approx(float(sum(halves)) / 2)


def test_no_image_with_a_region_is_no_loss_and_no_gradient() -> None:
    given = logits()
    loss = losses.cross_entropy(given, torch.full((5,), -1))
    loss.backward()
    assert float(loss) == 0 and given.grad is not None and not given.grad.any()


def test_rates_by_hand() -> None:
    cosine = Cosine(warmup_steps=10, least=0.1)
    factors = [cosine.factor(step, done, 8) for step, done in ((0, 0.0), (9, 0.0), (10, 0.0), (60, 4.0), (110, 8.0))]
    assert factors == pytest.approx([0.1, 1.0, 1.0, 0.1 + 0.9 / 2, 0.1])
    assert Cosine().factor(5, 2.0, 8) == pytest.approx((1 + 0.5**0.5) / 2)
    steps = Steps(kind="steps")
    epochs = {0: 1.0, 3: 1.0, 4: 1 / 2, 8: 1 / 4, 12: 1 / 8, 13: 1 / 16, 14: 1 / 32, 15: 1 / 64, 40: 1 / 64}
    assert {epoch: steps.factor(epoch * 7, epoch + 0.0, 50) for epoch in epochs} == epochs
