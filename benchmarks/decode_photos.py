"""Decoding JPEG photographs to 224 pixels: geosieve against Pillow's full decode, one core, same run.

The photographs are synthetic scenes with the spectrum of natural images (amplitude falls as 1/f), saved as cameras and
web sites do. The denser the file, the smaller the ratio: all of its code must be read at any scale.

Run from the repository's root: PYTHONPATH=lib python -m benchmarks.decode_photos
"""

from __future__ import annotations

import io
import os
import sys
from time import perf_counter

import numpy as np
from PIL import Image

from geosieve.images.decode import RGB, decode, resized
from geosieve.images.headers import Refusal

SIDE, REPEATS = 224, 5
KINDS = {
    "12 megapixels, quality 75": (4000, 3000, 75, 8.0),
    "12 megapixels, quality 92": (4000, 3000, 92, None),
    "500 pixels, quality 85": (500, 375, 85, 1.3),
}
"""Width, height, quality of JPEG, and how many times faster than Pillow it must be."""


def scene(width: int, height: int, seed: int) -> Image.Image:
    """Noise whose amplitude falls as 1/f, with colours that vary less than brightness."""
    rng = np.random.default_rng(seed)
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    spectrum = 1 / np.maximum(np.hypot(fx, fy), 1 / max(width, height))
    planes = []
    for strength in (50, 12, 12):
        phase = np.exp(2j * np.pi * rng.random(spectrum.shape))
        plane = np.fft.irfft2(spectrum * phase, (height, width))
        planes.append(128 + strength * (plane - plane.mean()) / plane.std())
    ycc = np.stack(planes, axis=-1).clip(0, 255).astype(np.uint8)
    return Image.fromarray(ycc, "YCbCr").convert("RGB")


def by_pillow(content: bytes) -> RGB:
    """All pixels decoded, and resized."""
    with Image.open(io.BytesIO(content)) as image:
        whole = image.convert("RGB")
        return np.asarray(whole.resize(resized(*whole.size, SIDE), Image.Resampling.BICUBIC))


def by_geosieve(content: bytes) -> RGB:
    """Decoded at a reduced scale, and resized."""
    pixels = decode(content, SIDE)
    assert not isinstance(pixels, Refusal), pixels
    return pixels


def main() -> int:
    """Print rates and differences. Return exit code 1 if a bar is missed."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    met = True
    for name, (width, height, quality, bar) in KINDS.items():
        stream = io.BytesIO()
        scene(width, height, seed=quality).save(stream, "JPEG", quality=quality)
        content = stream.getvalue()
        times: dict[str, list[float]] = {"geosieve": [], "Pillow": []}
        for _ in range(REPEATS):
            for peer, work in (("geosieve", by_geosieve), ("Pillow", by_pillow)):
                start = perf_counter()
                for _ in range(max(1, 500 // width * 20)):
                    work(content)
                times[peer].append((perf_counter() - start) / max(1, 500 // width * 20))
        ours, theirs = (min(seconds) for seconds in times.values())
        difference = np.abs(by_geosieve(content).astype(int) - by_pillow(content)).mean()
        told = "" if bar is None else f", bar {bar:g} {'met' if theirs / ours >= bar else 'MISSED'}"
        met &= bar is None or theirs / ours >= bar
        print(
            f"{name} ({len(content) / 1e6:.2f} MB): geosieve {1 / ours:.0f}/s, Pillow {1 / theirs:.1f}/s, "
            f"ratio {theirs / ours:.1f}{told}; mean difference {difference:.2f} of 255 levels"
        )
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
