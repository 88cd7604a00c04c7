"""Predictors that tell a region from a picture's colour, so that everyone can see what they should say."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

_SECONDS = 120.0  # a test that dies must not leave tasks behind for ever


class Colours:
    """Level v of one channel of a picture's first pixel means region v // 16 of `regions`, with probability 0.9.

    `raises_at`, `nan_at`: levels of green at which it fails. `extra`: regions more than there are. `seconds`: it takes
    for every batch. `folder`: every batch leaves a file `entered-…` there, and waits while there is a file `hold`.
    """

    def __init__(
        self,
        partition: str,
        digest: str,
        regions: int,
        channel: int = 0,
        raises_at: int = -1,
        nan_at: int = -1,
        extra: int = 0,
        version: str = "1",
        seconds: float = 0.0,
        folder: str = "",
    ) -> None:
        self.partitions = {partition: digest}
        self.digest = f"colours {channel} {version}"
        self.side = None
        self._partition, self._regions, self._channel = partition, regions, channel
        self._raises, self._nan, self._extra, self._seconds = raises_at, nan_at, extra, seconds
        self._folder = Path(folder) if folder else None

    def log_probabilities(self, images: Sequence[Any]) -> Mapping[str, Any]:
        time.sleep(self._seconds)
        if self._folder is not None:
            _wait(self._folder)
        if any(image[0, 0, 1] == self._raises for image in images):
            raise ArithmeticError("this green is too much")
        p = np.full((len(images), self._regions + self._extra), 0.1 / (self._regions - 1))
        for k, image in enumerate(images):
            p[k, image[0, 0, self._channel] // 16 % self._regions] = 0.9
            if image[0, 0, 1] == self._nan:
                p[k] = np.nan
        return {self._partition: np.log(p)}


def _wait(folder: Path) -> None:
    (folder / f"entered-{os.getpid()}-{time.time_ns()}").touch()
    end = time.monotonic() + _SECONDS
    while (folder / "hold").exists() and time.monotonic() < end:
        time.sleep(0.02)


def told(pixel: Sequence[int], regions: int, channel: int) -> np.ndarray:
    """What Colours says of a picture of one colour."""
    p = np.full(regions, 0.1 / (regions - 1))
    p[pixel[channel] // 16 % regions] = 0.9
    return p
