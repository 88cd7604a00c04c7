"""Medians of bootstrap samples for groups of images, without sorting each sample.

The images are sorted by distance once. The median of a sample lies within a few standard errors of rank n/2. So only
the images in this window (about 6 sqrt(n)) are counted one by one; all images below it are counted as one sum.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geosieve.geo.arrays import F8, I8

_STANDARD_ERRORS = 6.0
_TIE = 1e-11  # cumulative shares this close to 0.5 count as 0.5


@dataclass(frozen=True)
class Windows:
    """The windows of all groups.

    `rows`: for each group, the numbers of the images in its window, by ascending distance. `below`: whether each image
    lies below the window of its own group, (n,).
    """

    rows: tuple[I8, ...]
    below: NDArray[np.bool_]


def windows(order: I8, codes: NDArray[np.int32], buckets: NDArray[np.int32], n_groups: int, balanced: bool) -> Windows:
    """Find the window around the median of each group.

    `order`: numbers of the images to rank, by ascending distance, those without a prediction last. `codes` and
    `buckets`: group and bucket of each image, (n,). `balanced`: in a group, all buckets have equal weight; otherwise
    all images have.
    """
    by_group = order[np.argsort(codes[order], kind="stable")]
    bounds = np.searchsorted(codes[by_group], np.arange(n_groups + 1))
    below = np.zeros(codes.size, bool)
    rows = []
    for first, last in pairwise(bounds.tolist()):
        members = by_group[first:last]
        if not balanced:
            weights, reach = np.full(members.size, 1.0 / max(members.size, 1)), 0.5 / np.sqrt(max(members.size, 1))
        else:
            _, inverse, sizes = np.unique(buckets[members], return_inverse=True, return_counts=True)
            weights = 1.0 / (sizes.size * sizes[inverse])
            reach = float(np.sqrt(np.sum(0.25 / sizes))) / max(sizes.size, 1)
        shares = np.cumsum(weights)
        low = int(np.searchsorted(shares, 0.5 - _STANDARD_ERRORS * reach))
        high = int(np.searchsorted(shares, 0.5 + _STANDARD_ERRORS * reach, side="right")) + 1
        below[members[:low]] = True
        rows.append(members[low:high])
    return Windows(tuple(rows), below)


def sample_medians(
    values: F8, counts: NDArray[np.floating[Any]], buckets: NDArray[np.int32], below: F8, totals: F8, balanced: bool
) -> F8:
    """The median of one group in each bootstrap sample, shape (samples,), in the unit of `values`.

    The window has w images. `values`: their distances, ascending, infinite without a prediction, (w,). `counts`: how
    often each occurs in each sample, (w, samples). `buckets`: their buckets, (w,). `below` and `totals`: number of
    images below the window and in the whole group, by bucket, (buckets, samples).

    If exactly half of the weight lies at or below one image, the median is the mean of its distance and the next one.
    It is NaN for a sample without images.
    """
    if not balanced:
        buckets, below, totals = np.zeros_like(buckets), below.sum(0, keepdims=True), totals.sum(0, keepdims=True)
    held = totals > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        weight = np.where(held, 1.0 / (held.sum(0) * totals), 0.0)
    shares = np.cumsum(counts * weight[buckets], axis=0) + (below * weight).sum(0)
    # A sample whose median lies outside the window (about one in 10^8) gets the image at that end of the window.
    shares[-1] = np.inf
    lower, upper = np.argmax(shares >= 0.5 - _TIE, axis=0), np.argmax(shares > 0.5 + _TIE, axis=0)
    low, high = values[lower], values[upper]
    middle = np.where(low == high, low, (low + high) / 2)
    return np.where(held.any(0), middle, np.nan)
