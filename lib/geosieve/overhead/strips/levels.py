"""Which values of a strip become black and white: exact percentiles from histograms, and the 256 greys between them.

A value becomes a whole number in the same order (for floats: their bits, turned for negative ones). Its 16-bit digits
are counted from the highest on: the histogram of a digit tells in which of its values a rank lies, and the next digit
is counted only among the values that share the digits so far. So 8- and 16-bit strips are read once, 32-bit ones twice
and 64-bit ones four times. Histograms of parts are added, so the result is that of one sort, in any division.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geosieve.geo.arrays import Array

_DIGIT = 16
_DIGITS = 1 << _DIGIT

Counts = NDArray[np.int64]
"""Histograms of a digit, (prefixes, 65536)."""


def digits_of(dtype: np.dtype[Any]) -> int:
    """How many digits a value of this type has: so often a strip is read."""
    return -(-8 * dtype.itemsize // _DIGIT)


def ordered(values: Array) -> NDArray[np.uint64]:
    """Whole numbers that are in the order of the values."""
    bits = 8 * values.dtype.itemsize
    raw = values.view(f"u{values.dtype.itemsize}").astype(np.uint64)
    sign, every = np.uint64(1 << (bits - 1)), np.uint64((1 << bits) - 1)
    if values.dtype.kind == "u":
        return raw
    if values.dtype.kind == "i":
        return raw ^ sign
    return np.where(raw & sign, ~raw & every, raw | sign)


def restored(number: int, dtype: np.dtype[Any]) -> float:
    """The value of a whole number that `ordered` gave."""
    bits = 8 * dtype.itemsize
    sign, every = 1 << (bits - 1), (1 << bits) - 1
    if dtype.kind == "i":
        number ^= sign
    elif dtype.kind == "f":
        number = number ^ sign if number & sign else ~number & every
    return float(np.array([number], f"u{dtype.itemsize}").view(dtype)[0])


def count_digits(values: Array, depth: int, prefixes: Sequence[int]) -> Counts:
    """Count digit `depth`, from 0, among the values that begin with each prefix; at depth 0 the prefixes are (0,)."""
    numbers = ordered(values)
    shift = np.uint64(_DIGIT * (digits_of(values.dtype) - 1 - depth))
    heads = numbers >> shift
    if depth == 0:
        return np.bincount(heads.astype(np.int64), minlength=_DIGITS)[None]
    digits, heads = (heads & np.uint64(_DIGITS - 1)).astype(np.int64), heads >> np.uint64(_DIGIT)
    return np.stack([np.bincount(digits[heads == np.uint64(p)], minlength=_DIGITS) for p in prefixes])


@dataclass(frozen=True)
class Search:
    """The search for percentiles of one band. `found` has the prefix of each rank, and the rank among its values."""

    percentiles: tuple[float, ...]
    depth: int = 0
    values: int = 0
    found: tuple[tuple[int, int], ...] = ()

    @property
    def prefixes(self) -> list[int]:
        """The different prefixes, in order: what `count_digits` has to count next."""
        return sorted({prefix for prefix, _ in self.found}) or [0]

    def narrowed(self, counts: Counts) -> Search:
        """The search after the histograms of one more digit. Without any value, `values` stays 0."""
        values, found, prefixes = self.values, self.found, self.prefixes
        if self.depth == 0:
            values = int(counts.sum())
            found = tuple((0, rank) for rank in self._ranks(values)) if values else ()
        sums = counts.cumsum(axis=1)
        next_found = []
        for prefix, rank in found:
            running = sums[prefixes.index(prefix)]
            digit = int(np.searchsorted(running, rank, side="right"))
            next_found.append((prefix << _DIGIT | digit, rank - (int(running[digit - 1]) if digit else 0)))
        return Search(self.percentiles, self.depth + 1, values, tuple(next_found))

    def results(self, dtype: np.dtype[Any]) -> list[float]:
        """The percentiles, after all digits, interpolated linearly between neighbouring values as numpy does."""
        known = [restored(prefix, dtype) for prefix, _ in self.found]
        results = []
        for n, percentile in enumerate(self.percentiles):
            below, above = known[2 * n], known[2 * n + 1]
            share = math.modf((self.values - 1) * (percentile / 100.0))[0]
            step = above - below
            results.append(below + step * share if share < 0.5 else above - step * (1.0 - share))
        return results

    def _ranks(self, values: int) -> list[int]:
        ranks = []
        for percentile in self.percentiles:
            below = math.floor((values - 1) * (percentile / 100.0))
            ranks += [below, min(below + 1, values - 1)]
        return ranks


def greys(values: Array, low: float, high: float) -> NDArray[np.uint8]:
    """Values as greys: `low` and less is 0, `high` and more 255, linear between, rounded half up.

    If both are equal, the strip has one colour: it is 128, what is below 0 and what is above 255. What is not a number
    has any grey.
    """
    if values.dtype.kind != "f" and values.dtype.itemsize <= 2:
        bits = np.arange(1 << 8 * values.dtype.itemsize).astype(f"u{values.dtype.itemsize}")
        table = _greys(bits.view(values.dtype).astype(np.float64), low, high)
        return np.asarray(table[values.view(bits.dtype)])
    return _greys(values.astype(np.float64), low, high)


def _greys(values: NDArray[np.float64], low: float, high: float) -> NDArray[np.uint8]:
    if low == high:
        return np.where(values == low, 128, np.where(values < low, 0, 255)).astype(np.uint8)
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = np.floor((values - low) * 255.0 / (high - low) + 0.5)
    return np.asarray(np.nan_to_num(np.clip(scaled, 0.0, 255.0), nan=0.0).astype(np.uint8))
