"""The network that all peers use, in environments without this package: EfficientNet-Lite0 with a head, random weights.

Images come as uint8 (n, 224, 224, 3); the result are probabilities of regions, float32 (n, regions).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import timm
import torch

REGIONS, BATCH, SIDE = 1_536, 32, 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Look:
    """The network, on the CPU."""

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        model = timm.create_model("efficientnet_lite0", pretrained=False, num_classes=REGIONS)
        self.model = model.to(memory_format=torch.channels_last).eval()
        self.mean, self.std = (torch.tensor(of)[:, None, None] * 255 for of in (MEAN, STD))

    def __call__(self, images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        with torch.inference_mode():
            x = torch.from_numpy(images).permute(0, 3, 1, 2)
            x = ((x - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
            return self.model(x).softmax(dim=1).numpy()  # type: ignore[no-any-return]
