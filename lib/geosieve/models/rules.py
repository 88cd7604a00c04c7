"""From the logits of several crops and partitions to one distribution per image: the rules of published systems.

An image is seen in 1, 5 or 10 crops. A rule says how the crops are combined, and, for a family of partitions in which
each region of a finer one has a parent in the next coarser one, how the partitions are. The rules disagree in many
images, so a figure names its rule.

Sources: Müller-Budack et al. 2018 (f*: maximum over crops, product along ancestors; their TensorFlow code has one joint
softmax), Pramanick et al. 2022 (TransLocator: mean of logits over ten crops).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from geosieve.models.preprocessing import OverCrops

Along = Literal["product", "product_of_logits", "joint_softmax"]
"""Along the ancestors of a region of the finest partition: the product of the probabilities; the product of the logits;
or the product of the probabilities that one softmax over the regions of all partitions gives."""


def over_crops(logits: Tensor, rule: OverCrops) -> Tensor:
    """Log-probabilities of one partition, (images, regions), that sum to one. `logits`: (images, crops, regions)."""
    return _combined(logits, rule).log_softmax(dim=-1)


def along_ancestors(
    logits: Sequence[Tensor], parents: Sequence[Tensor], crops: OverCrops, rule: Along = "product"
) -> Tensor:
    """Log-probabilities of the finest partition of a family, (images, regions), that sum to one.

    `logits`: of each partition, (images, crops, regions), the coarsest first. `parents`: for each partition but the
    first, the parent of each of its regions, (regions,), an index in the partition before. A region without a parent
    (-1) has probability 0. With `product_of_logits`, so has a region with a logit that is not positive; if all have,
    they are equally probable.

    ValueError if the number of partitions and parents, or of regions and parents, does not match.
    """
    if len(parents) != len(logits) - 1:
        raise ValueError(f"{len(logits)} partitions have {len(logits) - 1} lists of parents, not {len(parents)}")
    for finer, of_finer in zip(logits[1:], parents, strict=True):
        if finer.shape[-1] != len(of_finer):
            raise ValueError(f"{finer.shape[-1]} regions have {len(of_finer)} parents")
    if rule == "product_of_logits":
        scores = [part.amax(dim=1) if crops == "max" else part.mean(dim=1) for part in logits]
        found = _along([score.clamp(min=0).log() for score in scores], parents)
        nothing = torch.isinf(found).all(dim=-1, keepdim=True)
        return torch.where(nothing, torch.zeros_like(found), found).log_softmax(dim=-1)
    if rule == "joint_softmax":
        sizes = [part.shape[-1] for part in logits]
        joint = torch.split(_combined(torch.cat(list(logits), dim=-1), crops), sizes, dim=-1)
        return _along(joint, parents).log_softmax(dim=-1)
    return _along([_combined(part, crops) for part in logits], parents).log_softmax(dim=-1)


def _combined(logits: Tensor, rule: OverCrops) -> Tensor:
    """Logarithms of the crops' combined probabilities, (images, regions); a maximum does not sum to one."""
    if rule == "mean_of_logits":
        return logits.mean(dim=1).log_softmax(dim=-1)
    log_p = logits.log_softmax(dim=-1)
    if rule == "max":
        return log_p.amax(dim=1)
    return log_p.logsumexp(dim=1) - torch.tensor(log_p.shape[1], dtype=log_p.dtype).log()


def _along(logarithms: Sequence[Tensor], parents: Sequence[Tensor]) -> Tensor:
    """Sums along the ancestors of each region of the last partition."""
    found = logarithms[0]
    for values, parent in zip(logarithms[1:], parents, strict=True):
        found = values + found[:, parent.clamp(min=0)]
        found[:, parent < 0] = -torch.inf
    return found
