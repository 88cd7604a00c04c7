"""What a network sees of an image, resized and cropped. This module needs no PyTorch."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field, model_validator

from geosieve.runtime.config import Config
from geosieve.runtime.errors import InputError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of red, green and blue in [0, 1]; what nearly all published backbones were trained with."""

OverCrops = Literal["max", "mean", "mean_of_logits"]
"""`max` or `mean` of the crops' probabilities, or probabilities of the mean of their logits."""

Crops = NDArray[np.uint8]
"""Shape (crops, height, width, 3): red, green and blue."""


class Preprocessing(Config):
    """From an image of any size to the crops that a network sees. Lengths are in pixels."""

    resize: int = Field(default=256, ge=1, description="shorter side of the image before it is cropped")
    crop: int = Field(default=224, ge=1, description="side of the square that the network sees")
    crops: Literal[1, 5, 10] = Field(
        default=1, description="1: the centre; 5: the centre and the corners; 10: these and their mirror images"
    )
    mean: tuple[float, float, float] = Field(default=IMAGENET_MEAN, description="of red, green and blue in [0, 1]")
    std: tuple[float, float, float] = Field(default=IMAGENET_STD, description="of red, green and blue in [0, 1]")

    @model_validator(mode="after")
    def _fits(self) -> Preprocessing:
        if self.crop > self.resize:
            raise ValueError(f"a crop of {self.crop} pixels does not fit into a side of {self.resize}")
        if min(self.std) <= 0:
            raise ValueError("std must be above 0")
        return self

    def crops_of(self, image: NDArray[np.uint8]) -> Crops:
        """The crops of an upright image in sRGB, (height, width, 3): centre, then corners from the top left.

        The image is resized by Pillow's bilinear filter, which is antialiased. InputError if it has another shape.
        """
        if image.ndim != 3 or image.shape[2] != 3 or min(image.shape) == 0 or image.dtype != np.uint8:
            raise InputError(f"an image is uint8 of shape (height, width, 3), not {image.dtype} of {image.shape}")
        height, width = image.shape[:2]
        scale = self.resize / min(height, width)
        size = (max(self.resize, round(width * scale)), max(self.resize, round(height * scale)))
        if (width, height) != size:
            image = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
        down, right = size[1] - self.crop, size[0] - self.crop
        corners = [(0, 0), (0, right), (down, 0), (down, right)] if self.crops > 1 else []
        places = [(down // 2, right // 2), *corners]
        found = np.stack([image[top : top + self.crop, left : left + self.crop] for top, left in places])
        return np.concatenate([found, found[:, :, ::-1]]) if self.crops == 10 else found
