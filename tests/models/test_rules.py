"""Rules over crops and ancestors: a loop over regions, hand-made logits, and how often the rules disagree."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from geosieve.models.rules import along_ancestors, over_crops

COARSE, MIDDLE, FINE = 4, 9, 20


def problem(seed: int, images: int = 30) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Random logits of five crops over a family of three partitions, and parents of which each has a child."""
    rng = np.random.default_rng(seed)
    logits = [torch.tensor(rng.normal(0, 2, (images, 5, n))) for n in (COARSE, MIDDLE, FINE)]
    parents = [
        np.concatenate([np.arange(coarser), rng.integers(0, coarser, finer - coarser)])
        for coarser, finer in ((COARSE, MIDDLE), (MIDDLE, FINE))
    ]
    return logits, [torch.tensor(parent) for parent in parents]


def softmax(values: list[float]) -> list[float]:
    total = sum(math.exp(v) for v in values)
    return [math.exp(v) / total for v in values]


@pytest.mark.parametrize("crops", ["max", "mean", "mean_of_logits"])
@pytest.mark.parametrize("along", ["product", "joint_softmax", "product_of_logits"])
def test_rules_over_ancestors_equal_a_loop(crops: str, along: str) -> None:
    logits, parents = problem(1)
    found = along_ancestors(logits, parents, crops, along)
    assert torch.allclose(found.exp().sum(dim=1), torch.ones(len(found), dtype=found.dtype))
    for image in range(len(found)):
        values = [part[image].tolist() for part in logits]  # [partition][crop][region]
        if along == "joint_softmax":
            joint = [[*values[0][crop], *values[1][crop], *values[2][crop]] for crop in range(5)]
            if crops == "mean_of_logits":
                joint = [[sum(column) / 5 for column in zip(*joint, strict=True)]]
            of_crops = [softmax(row) for row in joint]
            ends = [0, COARSE, COARSE + MIDDLE, COARSE + MIDDLE + FINE]
            each = [[row[a:b] for row in of_crops] for a, b in itertools.pairwise(ends)]
        elif along == "product_of_logits":
            each = [[[max(v, 0) for v in row] for row in part] for part in values]
            if crops != "max":
                means = [[sum(column) / 5 for column in zip(*part, strict=True)] for part in values]
                each = [[[max(v, 0) for v in mean]] for mean in means]
        elif crops == "mean_of_logits":
            each = [[softmax([sum(column) / 5 for column in zip(*part, strict=True)])] for part in values]
        else:
            each = [[softmax(row) for row in part] for part in values]
        join = max if crops == "max" else (lambda column: sum(column) / len(column))
        p = [[join(column) for column in zip(*part, strict=True)] for part in each]
        scores = []
        for region in range(FINE):
            middle = int(parents[1][region])
            scores.append(p[2][region] * p[1][middle] * p[0][int(parents[0][middle])])
        total = sum(scores)  # where every product has a logit that is not positive, all are equal
        expected = [score / total if total else 1 / FINE for score in scores]
        assert found[image].exp().tolist() == pytest.approx(expected, abs=1e-12)


def test_crops_by_hand() -> None:
    # Two crops, two regions: probabilities 0.9 and 0.1, then 0.4 and 0.6.
    logits = torch.tensor([[[0.9, 0.1], [0.4, 0.6]]], dtype=torch.float64).log()
    assert over_crops(logits, "mean").exp().tolist()[0] == pytest.approx([0.65, 0.35])
    assert over_crops(logits, "max").exp().tolist()[0] == pytest.approx([0.9 / 1.5, 0.6 / 1.5])
    ratio = math.sqrt(0.9 * 0.4 / (0.1 * 0.6))
    assert over_crops(logits, "mean_of_logits").exp().tolist()[0] == pytest.approx(
        [ratio / (1 + ratio), 1 / (1 + ratio)]
    )


def test_a_region_without_a_parent_has_no_probability() -> None:
    logits, parents = problem(2)
    parents[1][3] = -1
    for rule in ("product", "joint_softmax", "product_of_logits"):
        found = along_ancestors(logits, parents, "max", rule)  # type: ignore[arg-type]
        assert (found[:, 3] == -torch.inf).all() and torch.isfinite(found.exp().sum())


def test_rules_disagree_with_each_other_as_often_as_is_known() -> None:
    """On random problems of five crops, f* is known to give another region than the mean in 34 %, than the product of
    logits in 85 % and than one joint softmax in 46 % of cases. How those problems were drawn is not known."""
    logits, parents = problem(3, images=4_000)
    best = along_ancestors(logits, parents, "max").argmax(dim=1)
    mean = along_ancestors(logits, parents, "mean").argmax(dim=1)
    product = along_ancestors(logits, parents, "mean", "product_of_logits").argmax(dim=1)
    joint = along_ancestors(logits, parents, "max", "joint_softmax").argmax(dim=1)
    shares = [float((other != best).double().mean()) for other in (mean, product, joint)]
    assert shares == pytest.approx([0.34, 0.85, 0.46], abs=0.1)


def test_what_does_not_fit_is_refused() -> None:
    logits, parents = problem(4)
    with pytest.raises(ValueError, match="3 partitions have 2 lists of parents"):
        along_ancestors(logits, parents[:1], "max")
    with pytest.raises(ValueError, match="20 regions have 9 parents"):
        along_ancestors(logits, [parents[0], parents[0]], "max")
