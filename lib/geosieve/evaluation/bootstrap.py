"""Poisson bootstrap: counts of images in samples, sums over groups of images in all samples, and intervals.

The count of an image in a sample is drawn from Poisson(1), and each figure is a ratio of sums weighted by the counts.
For more than a few dozen images this is close to drawing n images with replacement.

The counts of an image depend only on its key and the seed. Therefore:
- the order and the partitioning of the rows do not change them;
- all systems are evaluated on the same samples, so that their comparisons are paired;
- they need not be stored, but are computed again where needed (1,000 samples of a million images are 10^9 numbers).

The sums for all samples are computed as matrix products.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray
from scipy.stats import poisson
from threadpoolctl import threadpool_limits

from geosieve.geo.arrays import F4, F8, U8

Matrix = Callable[[slice], F8]
"""A function that returns the columns of a range of rows, shape (rows, columns)."""

BLOCK_ROWS = 4_096  # 16 MB of counts at 1,000 samples
_CHUNK_ROWS = 128  # small enough for the processor's cache
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)

# Steps of the cumulative distribution function of Poisson(1), scaled to 16 bits. The number of steps <= u is the count
# that belongs to a uniform 16-bit number u.
_STEPS = np.unique(np.rint(poisson.cdf(np.arange(16), 1) * 65536))
_STEPS = _STEPS[_STEPS < 65536].astype(np.uint16)


def poisson_counts(keys: U8, seed: int, samples: int) -> F4:
    """How often each image occurs in each sample, shape (n, samples), given the images' keys (n,).

    The counts follow Poisson(1); the probability of each count is exact to 1.5e-5.
    """
    words = -(-samples // 4)
    with np.errstate(over="ignore"):
        steps = np.arange(1, words + 1, dtype=np.uint64) * _GOLDEN
        starts = _mix(keys ^ _mix(np.array([seed], np.int64).view(np.uint64)))
    counts = np.empty((keys.size, samples), np.float32)
    for first in range(0, keys.size, _CHUNK_ROWS):
        rows = slice(first, first + _CHUNK_ROWS)
        drawn = _mix(starts[rows, None] + steps).view(np.uint16)[:, :samples]
        total = np.zeros(drawn.shape, np.uint8)
        for step in _STEPS:
            total += drawn >= step
        counts[rows] = total
    return counts


def _mix(numbers: U8) -> U8:
    """Hash 64-bit numbers, so that consecutive ones look independent: splitmix64's finalizer (Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        mixed = numbers ^ (numbers >> np.uint64(30))
        mixed *= np.uint64(0xBF58476D1CE4E5B9)
        mixed ^= mixed >> np.uint64(27)
        mixed *= np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
    return mixed


@dataclass(frozen=True)
class Part:
    """One division of n images into cells, and the columns to sum over them.

    `cells`: the cell number of each image, (n,), in [0, n_cells). `own`: columns that are summed for this division
    only. `width`: number of columns, shared and own together.
    """

    cells: NDArray[np.int32]
    n_cells: int
    width: int
    own: Matrix | None = None


@dataclass(frozen=True)
class Sums:
    """Sums of columns over cells.

    `point`: each image counted once, (cells, columns). `samples`: for each bootstrap sample, (cells, columns, samples),
    in single precision: counts are exact up to 16 million, sums of distances to about 1e-6 (relative).
    """

    point: F8
    samples: F4


def cell_sums(keys: U8, shared: Matrix, parts: Sequence[Part], seed: int, samples: int) -> list[Sums]:
    """For each part, sum the `shared` columns and then the part's own columns over its cells.

    The rows must always be in the same order (sorted by key), because the rounding of the sums depends on it. Each
    thread works on a different part, so the number of threads does not change the result.
    """
    starts = range(0, keys.size, BLOCK_ROWS)
    blocks = [slice(first, min(first + BLOCK_ROWS, keys.size)) for first in starts]
    adders = [_Adder(part, samples) for part in parts]
    # One BLAS thread per product: BLAS threads besides our own would busy-wait for each other.
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor() as pool:
        waiting = deque([pool.submit(poisson_counts, keys[rows], seed, samples) for rows in blocks[:1]])
        for rows, following in zip_longest(blocks, blocks[1:]):
            counts, matrix = waiting.popleft().result(), shared(rows)
            if following is not None:
                waiting.append(pool.submit(poisson_counts, keys[following], seed, samples))
            for done in [pool.submit(adder.add, rows, matrix, counts) for adder in adders]:
                done.result()
    return [adder.sums for adder in adders]


class _Adder:
    """Adds blocks of rows to the sums of one part."""

    def __init__(self, part: Part, samples: int) -> None:
        self._part = part
        width = part.width
        self.sums = Sums(np.zeros((part.n_cells, width)), np.zeros((part.n_cells, width, samples), np.float32))
        # Reused for all blocks: allocating the memory again would cost more than the computation in it.
        self._counts = np.empty((BLOCK_ROWS, samples), np.float32)

    def add(self, rows: slice, matrix: F8, counts: F4) -> None:
        """Add a block: its range of rows, its shared columns (rows, columns), and its counts (rows, samples)."""
        part = self._part
        block = matrix if part.own is None else np.hstack([matrix, part.own(rows)])
        cells = part.cells[rows]
        order = np.argsort(cells, kind="stable")
        present, starts = np.unique(cells[order], return_index=True)
        block = block[order]
        self.sums.point[present] += np.add.reduceat(block, starts, axis=0)
        single = np.ascontiguousarray(block.T, np.float32)
        if present.size > 1:
            counts = np.take(counts, order, axis=0, out=self._counts[: cells.size], mode="clip")
        for cell, first, last in zip(present, starts, [*starts[1:], cells.size], strict=True):
            self.sums.samples[cell] += single[:, first:last] @ counts[first:last]


def interval(samples: F8, confidence: float) -> tuple[F8, F8]:
    """Percentile interval over the last axis, interpolated linearly: (low, high), each without that axis.

    NaN samples are ignored. Both ends are NaN if all samples are NaN.
    """
    ordered = np.sort(samples, axis=-1)  # NaN comes last
    last = np.maximum(np.sum(~np.isnan(ordered), axis=-1) - 1, 0)
    ends = []
    for share in ((1 - confidence) / 2, (1 + confidence) / 2):
        position = share * last
        lower = np.take_along_axis(ordered, np.floor(position).astype(np.int64)[..., None], -1)[..., 0]
        upper = np.take_along_axis(ordered, np.ceil(position).astype(np.int64)[..., None], -1)[..., 0]
        with np.errstate(invalid="ignore"):  # infinite medians: inf - inf
            between = lower + (position - np.floor(position)) * (upper - lower)
        ends.append(np.where(lower == upper, lower, between))
    return ends[0], ends[1]
