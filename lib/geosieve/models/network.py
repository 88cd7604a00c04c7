"""The network of a classifier over partitions: one backbone, and one linear head per partition.

Other kinds of models (two branches, contrastive, densities) get a module of their own beside this one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import timm
import torch
from torch import nn

from geosieve.models.preprocessing import Preprocessing
from geosieve.runtime.errors import ConfigError
from geosieve.runtime.names import advice


class Network(nn.Module):
    """Logits over the regions of partitions, from images.

    `backbone` is a name of `timm`; its weights are random until they are loaded. `heads`: number of regions by the name
    of the partition.
    """

    def __init__(self, backbone: str, heads: Mapping[str, int], dropout: float = 0.0) -> None:
        """ConfigError if `timm` has no backbone of this name; it tells the nearest ones."""
        super().__init__()
        if backbone not in timm.list_models() and backbone not in timm.list_pretrained():
            raise ConfigError(
                f"no backbone {backbone!r}", hint=advice(backbone, timm.list_models(), "backbones of timm")
            )
        self.backbone = timm.create_model(backbone, pretrained=False, num_classes=0)
        self.dropout = nn.Dropout(dropout)
        width = _features(self.backbone)
        # In a list: names of partitions may hold what names of modules may not.
        self.partitions = tuple(heads)
        linear = [nn.Linear(width, regions) for regions in heads.values()]
        for head in linear:
            nn.init.normal_(head.weight, std=0.01)
            nn.init.zeros_(head.bias)
        self.heads = nn.ModuleList(linear)

    def on(self, device: torch.device) -> Network:
        """This network on a device, with its weights in the order of memory in which convolutions are fastest."""
        return self.to(device).to(memory_format=torch.channels_last)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Logits of each partition, (n, regions), in the order of `partitions`. `images`: (n, 3, height, width)."""
        features = self.dropout(self.backbone(images))
        return tuple(head(features) for head in self.heads)


def normal(given: Preprocessing, pixels: torch.Tensor) -> torch.Tensor:
    """What the network takes: levels (…, 3, height, width) from 0 to 255, less the mean, over the deviation.

    The result lies in memory with channels last, in which convolutions are fastest.
    """
    mean, std = (torch.tensor(v, device=pixels.device)[:, None, None] * 255 for v in (given.mean, given.std))
    return ((pixels - mean) / std).contiguous(memory_format=torch.channels_last)


def _features(backbone: Any) -> int:
    """The number of features. `num_features` is another number where the pooled features pass one more layer."""
    was = backbone.training
    size = backbone.default_cfg.get("input_size", (3, 224, 224))
    backbone.eval()
    with torch.no_grad():
        found = backbone(torch.zeros(1, *size)).shape[-1]
    backbone.train(was)
    return int(found)
