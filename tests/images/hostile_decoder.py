"""A decoder that does what the bytes say: crash, hang, print, or give pixels."""

from __future__ import annotations

import os
import signal
import time

import numpy as np

from geosieve.images.decode import RGB
from geosieve.images.headers import Refusal


def decode(content: bytes, side: int | None = None, pixels: int = 0, longest: int | None = None) -> RGB | Refusal:
    if content == b"crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if content == b"exit":
        os._exit(3)
    if content == b"hang":
        time.sleep(600)
    if content == b"refuse":
        return Refusal("broken_image", "it is broken")
    print("a decoder's own words", flush=True)
    return np.full((2, side or 1, 3), len(content) % 256, np.uint8)
