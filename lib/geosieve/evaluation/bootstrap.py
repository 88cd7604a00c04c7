"""Bootstrap sums: how often each image stands in each sample, and sums over groups of images for all samples at once.

The Poisson bootstrap: an image's count in a sample is Poisson(1) and a figure is a ratio of weighted sums, which for
more than a few dozen images is the usual resampling. The counts of an image are a function of its key and the seed
alone. So neither the order of rows nor their distribution decides anything, two systems share each sample
(paired), and counts are made again where they are needed instead of being kept (1,000 samples of a million images are
10^9 numbers). Sums over samples are matrix products.
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

BLOCK_ROWS = 4_096  # 16 MB of counts at 1,000 samples
_CHUNK_ROWS = 128  # counts are made in the processor's cache
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)

# A 16-bit number u is the count of those steps of Poisson(1)'s distribution function that are <= u.
_STEPS = np.unique(np.rint(poisson.cdf(np.arange(16), 1) * 65536))
_STEPS = _STEPS[_STEPS < 65536].astype(np.uint16)


def poisson_counts(keys: U8, seed: int, samples: int) -> F4:
    """How often each image stands in each sample, shape (n, samples): Poisson(1), to 1.5e-5 in each probability."""
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
    """The finalizer of splitmix64 (Steele, Lea and Flood 2014): neighbouring numbers become independent ones."""
    with np.errstate(over="ignore"):
        mixed = numbers ^ (numbers >> np.uint64(30))
        mixed *= np.uint64(0xBF58476D1CE4E5B9)
        mixed ^= mixed >> np.uint64(27)
        mixed *= np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
    return mixed


@dataclass(frozen=True)
class Part:
    """A division of the images into cells (n,), numbered below `n_cells`, and columns that only it sums.

    `width`: columns in all.
    """

    cells: NDArray[np.int32]
    n_cells: int
    width: int
    own: Matrix | None = None


@dataclass(frozen=True)
class Sums:
    """Sums of columns over cells: of the images themselves (cells, columns), and of each sample (…, samples).

    Those of samples are of single precision: exact for counts up to 16 million, to 1e-6 for distances.
    """

    point: F8
    samples: F4


def cell_sums(keys: U8, shared: Matrix, parts: Sequence[Part], seed: int, samples: int) -> list[Sums]:
    """For each part the sums of the `shared` columns, followed by its own, over its cells.

    Rows must come in an order that is always the same (that of their keys): sums of distances round by it. Threads
    work on different parts, so that their number changes nothing.
    """
    starts = range(0, keys.size, BLOCK_ROWS)
    blocks = [slice(first, min(first + BLOCK_ROWS, keys.size)) for first in starts]
    adders = [_Adder(part, samples) for part in parts]
    # One thread a product: threads of BLAS beside ours would wait for each other, spinning.
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
        # Kept from block to block: new memory costs more than what is computed in it.
        self._counts = np.empty((BLOCK_ROWS, samples), np.float32)

    def add(self, rows: slice, matrix: F8, counts: F4) -> None:
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
    """Percentile interval over the last axis, NaN samples left out; NaN where all are."""
    ordered = np.sort(samples, axis=-1)  # NaN comes last
    last = np.maximum(np.sum(~np.isnan(ordered), axis=-1) - 1, 0)
    ends = []
    for share in ((1 - confidence) / 2, (1 + confidence) / 2):
        position = share * last
        lower = np.take_along_axis(ordered, np.floor(position).astype(np.int64)[..., None], -1)[..., 0]
        upper = np.take_along_axis(ordered, np.ceil(position).astype(np.int64)[..., None], -1)[..., 0]
        with np.errstate(invalid="ignore"):  # infinite medians
            between = lower + (position - np.floor(position)) * (upper - lower)
        ends.append(np.where(lower == upper, lower, between))
    return ends[0], ends[1]
