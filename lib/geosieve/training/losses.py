"""Losses of heads over partitions: cross entropy, with smooth targets where wanted."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

from geosieve.geo.sphere import EARTH_RADIUS_KM


def cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor, smoothing: float = 0.0, targets: torch.Tensor | None = None
) -> torch.Tensor:
    """The mean cross entropy over a batch; images without a region (negative labels) add 0 to the sum.

    `logits`: (n, regions). `labels`: (n,), indices of regions. `smoothing`: share of the target that is spread evenly
    over all regions (Szegedy et al. 2016). `targets`: (n, regions), which replace the label's own; see
    `haversine_targets`. The sum is divided by n, not by the number of images with a region, so that the mean over ranks
    is that of one large batch.
    """
    known = labels >= 0
    log_p = functional.log_softmax(logits.float(), dim=-1)
    if targets is None:
        at_label = -log_p.gather(1, labels.clamp(min=0)[:, None])[:, 0]
    else:
        at_label = -(targets * log_p).sum(dim=-1)
    loss = (1 - smoothing) * at_label - smoothing * log_p.mean(dim=-1)
    return torch.where(known, loss, torch.zeros_like(loss)).sum() / max(1, len(loss))


def haversine_targets(
    positions: torch.Tensor, labels: torch.Tensor, centres: torch.Tensor, tau_km: float
) -> torch.Tensor:
    """Targets that fall off with the distance of regions from the image (PIGEON, Haas et al. 2024, equation 2).

    y_i = exp(-(d(c_i, x) - d(c_true, x)) / tau), with great-circle distances. They do not sum to one. `positions`:
    (n, 2), latitude and longitude of the images in degrees; `labels`: (n,); `centres`: (regions, 2), as positions.
    """
    distance = _great_circle_km(positions[:, None].double(), centres[None].double())
    own = distance.gather(1, labels.clamp(min=0)[:, None])
    return torch.exp((own - distance) / tau_km).float()


def total(losses: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    """The weighted sum of the heads' losses."""
    return torch.stack([weight * loss for weight, loss in zip(weights, losses, strict=True)]).sum()


def _great_circle_km(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Haversine distances of positions (…, 2) in degrees."""
    lat_a, lon_a, lat_b, lon_b = (torch.deg2rad(x) for x in (a[..., 0], a[..., 1], b[..., 0], b[..., 1]))
    h = torch.sin((lat_b - lat_a) / 2) ** 2 + torch.cos(lat_a) * torch.cos(lat_b) * torch.sin((lon_b - lon_a) / 2) ** 2
    return 2 * EARTH_RADIUS_KM * torch.asin(torch.sqrt(h.clamp(0, 1)))
