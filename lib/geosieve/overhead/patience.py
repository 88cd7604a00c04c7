"""Requests at a steady pace, and again after failures that may pass."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from geosieve.overhead.download import DownloadError

T = TypeVar("T")


@dataclass
class Pace:
    """Lets a request begin every `seconds` at most, also those of several threads. An hour never has more."""

    seconds: float
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    _next: float = field(default=float("-inf"), init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def wait(self) -> None:
        """Return when the next request may begin."""
        with self._lock:
            now = self.clock()
            begin = max(now, self._next)
            self._next = begin + self.seconds
        if begin > now:
            self.sleep(begin - now)


@dataclass(frozen=True)
class Patience:
    """How often a failed request is made again: `attempts` in all, with pauses that double from `first_s`.

    A server that asks for a longer pause gets it, up to `longest_s`.
    """

    attempts: int = 5
    first_s: float = 2.0
    longest_s: float = 300.0
    sleep: Callable[[float], None] = time.sleep

    def __call__(self, attempt: Callable[[], T]) -> T:
        """The result of `attempt`. Its DownloadError if that is not temporary, or if it was the last attempt."""
        for number in range(1, self.attempts + 1):
            try:
                return attempt()
            except DownloadError as error:
                if not error.temporary or number == self.attempts:
                    raise
                pause = self.first_s * 2 ** (number - 1) * random.uniform(0.8, 1.2)  # noqa: S311 - no secret
                self.sleep(min(self.longest_s, max(pause, error.retry_after_s or 0.0)))
        raise AssertionError("at least one attempt is made")
