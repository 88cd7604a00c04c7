"""Random numbers by hashing a seed, the id of a scene and a name, so that they do not depend on the batch or order."""

from __future__ import annotations

from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from geosieve.geo.arrays import F4, I8, U8

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class Draws:
    """Random numbers of scenes. Each scene has its own for each name; new names do not change those of others."""

    def __init__(self, seed: int, ids: I8) -> None:
        """`ids`: one number per scene, shape (n,)."""
        start = _mix(np.array([seed % 2**64], np.uint64))
        self._keys = _mix(start + np.asarray(ids, np.int64).astype(np.uint64) * _GOLDEN)

    def uniform(self, name: str, count: int | None = None) -> F4:
        """Numbers in [0, 1), shape (n,), or (n, count). They have 24 bits."""
        keys = self._named(name)
        if count is not None:
            keys = _mix(keys[:, None] + np.arange(count, dtype=np.uint64) * _GOLDEN)
        return (keys >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)

    def between(self, name: str, low: float, high: float) -> F4:
        """Numbers in [low, high), shape (n,)."""
        return np.float32(low) + np.float32(high - low) * self.uniform(name)

    def pixel_bytes(self, side: int) -> NDArray[np.uint8]:
        """Eight random bytes per pixel, shape (n, 8, side, side)."""
        keys = self._named("pixels")[:, None] + np.arange(side * side, dtype=np.uint64) * _GOLDEN
        octets = _mix(keys).astype("<u8").view(np.uint8).reshape(-1, side, side, 8)
        return np.moveaxis(octets, -1, 1)

    def _named(self, name: str) -> U8:
        return _mix(self._keys + np.uint64(crc32(name.encode())))


def _mix(numbers: U8) -> U8:
    """The finalizer of splitmix64 (Steele et al. 2014). The numbers are an array, because arrays may overflow."""
    mixed = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
