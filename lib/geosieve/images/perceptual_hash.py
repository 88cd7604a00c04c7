"""A hash of what an image looks like: nearly the same for copies that were scaled, compressed anew or edited lightly.

Images whose hashes differ in few of the 64 bits are near duplicates. The hash does not see crops, mirror images, turned
images and strong changes of colour. Of images that hardly have any structure, such as a clear sky, noise decides it.
"""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy.fft import dctn

from geosieve.images.decode import RGB

SIDE = 64
"""Length of the shorter side at which images are decoded for the hash, in pixels."""

_SIDE, _LOWEST = 32, 8  # of the grey image, and of the block of coefficients
# Rounding errors of the transform are below this; without it they would decide the bits of an evenly coloured image.
_ZERO = 1e-6


def perceptual_hash(pixels: RGB) -> int:
    """The hash of an image, shape (height, width, 3), as a signed integer of 64 bits.

    Bit 8·i + j (0 is the lowest) tells whether coefficient (i, j) of the discrete cosine transform (type II) of the
    image, in grey and scaled to 32 × 32, is positive; i counts vertical frequencies, j horizontal ones, both from 0
    to 7. Bit 0 would be the mean and is always 0. Source: the DCT hash of C. Zauner, "Implementation and Benchmarking
    of Perceptual Image Hash Functions", 2010, with the sign in place of a comparison with the median.
    """
    grey = Image.fromarray(pixels).convert("L").resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
    lowest = dctn(np.asarray(grey, dtype=np.float64), norm="ortho")[:_LOWEST, :_LOWEST]
    bits = lowest > _ZERO
    bits[0, 0] = False
    return int(np.packbits(bits, bitorder="little").view("<i8")[0])
