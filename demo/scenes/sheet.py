"""A contact sheet of pictures with captions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

_CAPTION_PX = 14
_MARGIN_PX = 4


def sheet(images: NDArray[np.uint8], captions: Sequence[str], path: Path, columns: int = 6, zoom: int = 2) -> None:
    """Write a PNG file with all images, shape (n, side, side, 3), each under its caption and `zoom` times as large."""
    side = images.shape[1] * zoom
    wide, high = side + _MARGIN_PX, side + _CAPTION_PX + _MARGIN_PX
    page = Image.new("RGB", (columns * wide, -(-len(images) // columns) * high), "white")
    pen = ImageDraw.Draw(page)
    for k, (image, caption) in enumerate(zip(images, captions, strict=True)):
        x, y = k % columns * wide, k // columns * high
        pen.text((x + 2, y + 1), caption, fill="black")
        page.paste(Image.fromarray(image).resize((side, side), Image.Resampling.NEAREST), (x, y + _CAPTION_PX))
    page.save(path)
