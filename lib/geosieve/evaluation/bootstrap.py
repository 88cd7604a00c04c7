"""Bootstrap sums: how often each image stands in each sample, and sums over groups of images for all samples at once.

The Poisson bootstrap: an image's count in a sample is Poisson(1) and a figure is a ratio of weighted sums, which for
more than a few dozen images is the usual resampling. The counts of an image are a function of its key and the seed
alone. So neither the order of rows nor their distribution decides anything, two systems share each sample
(paired), and counts are made again where they are needed instead of being kept (1,000 samples of a million images are
10^9 numbers). Sums over samples are matrix products.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import poisson

F4 = NDArray[np.float32]
F8 = NDArray[np.float64]
U8 = NDArray[np.uint64]
Matrix = Callable[[slice], F8]

BLOCK_ROWS = 16_384  # 64 MB of counts at 1,000 samples
_CHUNK_ROWS = 256  # counts are made in the processor's cache
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
    """A division of the images into cells (n,), numbered below `n_cells`, and columns that only it sums."""

    cells: NDArray[np.int32]
    n_cells: int
    own: Matrix | None = None


@dataclass(frozen=True)
class Sums:
    """Sums of columns over cells: of the images themselves (cells, columns), and of each sample (…, samples)."""

    point: F8
    samples: F4


def cell_sums(keys: U8, shared: Matrix, parts: Sequence[Part], seed: int, samples: int) -> list[Sums]:
    """For each part the sums of the `shared` columns, followed by its own, over its cells.

    Rows must come in an order that is always the same (that of their keys): sums of distances round by it.
    """
    sums: list[Sums] = []
    for first in range(0, keys.size, BLOCK_ROWS):
        rows = slice(first, min(first + BLOCK_ROWS, keys.size))
        counts, matrix = poisson_counts(keys[rows], seed, samples), shared(rows)
        for number, part in enumerate(parts):
            block = matrix if part.own is None else np.hstack([matrix, part.own(rows)])
            if number == len(sums):
                sums.append(_zeros(part.n_cells, block.shape[1], samples))
            _add(sums[number], part.cells[rows], block, counts)
    return sums


def _zeros(cells: int, width: int, samples: int) -> Sums:
    return Sums(np.zeros((cells, width)), np.zeros((cells, width, samples), np.float32))


def _add(sums: Sums, cells: NDArray[np.int32], block: F8, counts: F4) -> None:
    order = np.argsort(cells, kind="stable")
    present, starts = np.unique(cells[order], return_index=True)
    sums.point[present] += np.add.reduceat(block[order], starts, axis=0)
    single = block.astype(np.float32)
    for cell, rows in zip(present, np.split(order, starts[1:]), strict=True):
        whole = rows.size == cells.size
        sums.samples[cell] += single.T @ counts if whole else single[rows].T @ counts[rows]


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
