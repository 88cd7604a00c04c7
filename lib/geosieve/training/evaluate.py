"""How good a network is on the validation split, and the temperatures that make its probabilities true."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.polynomial import Polynomial
from torch import Tensor

from geosieve.geo.arrays import F8
from geosieve.models.network import Network, normal
from geosieve.models.rules import over_crops
from geosieve.training.loader import evaluation_batches
from geosieve.training.ranks import Ranks

if TYPE_CHECKING:
    from geosieve.training.loop import Setup

_BINS = 15
"""Of the reliability diagram: equal intervals of the probability of the most probable region."""
_INVERSE_TEMPERATURES = np.geomspace(1 / 16, 16, 49)
_TOP = 5


@dataclass(frozen=True)
class OfPartition:
    """Figures of one partition, over the images that have a region in it.

    `log_loss`: mean negative logarithm of the probability of the true region, at the temperature. `top1` and `top5`:
    shares of images whose region is the most probable, or among the five. `reliability`: (bins, 3), number of images,
    mean probability of their most probable region, and the share of them for which it is the true one.
    """

    images: int
    log_loss: float
    top1: float
    top5: float
    temperature: float
    reliability: tuple[tuple[int, float, float], ...] = ()

    @property
    def calibration_error(self) -> float:
        """Mean distance of probability from share over images (expected calibration error, Guo et al. 2017)."""
        return sum(n * abs(p - share) for n, p, share in self.reliability) / max(1, self.images)


@dataclass(frozen=True)
class Evaluation:
    """Figures by partition. `loss`: the weighted sum of their log losses."""

    partitions: Mapping[str, OfPartition]
    loss: float


def evaluated(
    network: Network, setup: Setup, ranks: Ranks, device: torch.device, calibrate: bool = False
) -> Evaluation:
    """Evaluate a network on all images of the validation split; each rank reads its files.

    With `calibrate`, a temperature is fitted per partition, and figures are those at it; otherwise it is 1. All ranks
    get the same result.
    """
    names = [partition.name for partition in setup.partitions]
    temperatures = dict.fromkeys(names, 1.0)
    if calibrate:
        losses = {name: np.zeros(len(_INVERSE_TEMPERATURES)) for name in names}
        counts = dict.fromkeys(names, 0.0)
        for name, logits, labels in logits_of(network, setup, ranks, device):
            losses[name] += [float(_log_p(logits, labels, b, setup)[0]) for b in _INVERSE_TEMPERATURES]
            counts[name] += len(labels)
        for name in names:
            summed = ranks.sums(torch.tensor([*losses[name], counts[name]]))
            if summed[-1] > 0:
                temperatures[name] = 1 / _least(np.log(_INVERSE_TEMPERATURES), summed[:-1].numpy() / float(summed[-1]))
    sums = {name: torch.zeros(4, dtype=torch.float64) for name in names}
    bins = {name: torch.zeros(_BINS, 3, dtype=torch.float64) for name in names}
    for name, logits, labels in logits_of(network, setup, ranks, device):
        loss, log_p = _log_p(logits, labels, 1 / temperatures[name], setup)
        top = log_p.topk(min(_TOP, log_p.shape[1]), dim=1).indices
        hit = top == labels[:, None]
        sums[name] += torch.stack([torch.tensor(len(labels)), loss.cpu(), hit[:, 0].sum().cpu(), hit.sum().cpu()])
        bins[name] += _binned(log_p.amax(dim=1).exp().cpu().double(), hit[:, 0].cpu().double())
    found = {}
    for name in names:
        images, loss, top1, top5 = ranks.sums(sums[name]).tolist()
        rows = ranks.sums(bins[name])
        n = max(1.0, images)
        reliability = tuple((int(m), p / max(1, m), share / max(1, m)) for m, p, share in rows.tolist())
        found[name] = OfPartition(int(images), loss / n, top1 / n, top5 / n, temperatures[name], reliability)
    weights = {name: setup.config.heads[name].weight for name in names}
    return Evaluation(found, sum(weights[name] * found[name].log_loss for name in names))


def logits_of(
    network: Network, setup: Setup, ranks: Ranks, device: torch.device
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """For each batch and partition: its name, logits (n, crops, regions) and labels (n,) of images with a region."""
    config = setup.config
    was = network.training
    network.eval()
    batches = evaluation_batches(
        setup.validation, ranks.rank, ranks.size, config.batch, config.preprocessing, config.loader.workers
    )
    with torch.inference_mode():
        for batch in batches:
            given = batch.images.to(device)
            crops = given.reshape(len(given), -1, 3, *given.shape[2:])
            n = crops.shape[1]
            found = network(normal(config.preprocessing, crops.flatten(0, 1)))
            labels = batch.labels.to(device)
            for k, (partition, logits) in enumerate(zip(setup.partitions, found, strict=True)):
                known = labels[:, k] >= 0
                yield partition.name, logits.float().reshape(-1, n, logits.shape[-1])[known], labels[known, k]
    network.train(was)


def _log_p(logits: Tensor, labels: Tensor, inverse: float, setup: Setup) -> tuple[Tensor, Tensor]:
    """The sum of the log losses at an inverse temperature, and log-probabilities, (n, regions)."""
    log_p = over_crops(logits.double() * inverse, setup.config.over_crops)
    return -log_p.gather(1, labels[:, None]).sum(), log_p


def _binned(probability: Tensor, hit: Tensor) -> Tensor:
    """Images, summed probability and hits by bin, (bins, 3)."""
    at = (probability * _BINS).long().clamp(max=_BINS - 1)
    found = torch.zeros(_BINS, 3, dtype=torch.float64)
    return found.index_add_(0, at, torch.stack([torch.ones_like(hit), probability, hit], dim=1))


def _least(log_inverse: F8, loss: F8) -> float:
    """The inverse temperature of the least loss: the lowest point of the parabola through the three lowest values.

    The loss is convex in the inverse temperature, so it has one minimum; if it lies at an end of the range, the end.
    """
    k = int(np.argmin(loss))
    if k in (0, len(loss) - 1):
        return float(np.exp(log_inverse[k]))
    near = slice(k - 1, k + 2)
    curve = Polynomial.fit(log_inverse[near], loss[near], 2)  # type: ignore[no-untyped-call]
    bottom: Any = curve.deriv().roots()
    return float(np.exp(np.clip(bottom[0], log_inverse[k - 1], log_inverse[k + 1])))
