"""Link numbers that differ by few bits. Arrays only, no Spark.

If two numbers differ by at most k bits and their bits are divided into k + c blocks, at least c blocks are equal
(pigeonhole rule). So for each choice of c blocks, only numbers that are equal in these blocks are compared (Manku, Jain
and Das Sarma: Detecting Near-Duplicates for Web Crawling, WWW 2007). With c = 1 there are few choices, but many numbers
are equal in one block; a higher c makes more choices of fewer numbers. `blocks_in_key` weighs both.

Hashes of images are not uniform: many flat images may be equal in most blocks. So a run of numbers that are equal in
the chosen blocks, if it is long, is treated in the same way by its other bits. And runs whose numbers are linked
already are not compared.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geosieve.splits.groups import component_roots

Ints = NDArray[np.int64]
Numbers = NDArray[np.uint64]

# Measured for runs of 1,000 to 1,000,000 numbers, in units of one comparison (about 4 ns).
_SORT = 20  # time per number to sort by a key and to find the runs
_CALLS = 60_000  # time per key that does not depend on the numbers
_SLICE = 1 << 14  # numbers that are compared at once: their arrays stay in the processor's cache
_NEIGHBOURS = 8
_HELD = 1 << 18  # pairs that are held until they are joined


def borders(bits: int, blocks: int) -> list[int]:
    """Borders of nearly equal blocks of `bits` bits: block i has the bits from borders[i] to borders[i + 1]."""
    return [bits * i // blocks for i in range(blocks + 1)]


def blocks_in_key(n: int, bits: int, k: int) -> int:
    """How many blocks n numbers of `bits` bits should have in common to be compared: 0 means that all are compared.

    It takes the least time if the numbers are uniform.
    """
    return min(range(max(0, bits - k) + 1), key=lambda blocks: _work(n, bits, k, blocks))


def _work(n: int, bits: int, k: int, blocks: int) -> float:
    """Time to compare n numbers that have this number of blocks in common, in units of one comparison."""
    if blocks == 0:
        return n * n / 2
    alike = n * n / 2.0 ** (bits * blocks // (k + blocks) + 1)
    return comb(k + blocks, blocks) * (n * _SORT + _CALLS + alike)


@cache
def _longest(bits: int, k: int) -> int:
    """The largest n for which n numbers are compared with each other directly."""
    return bisect_left(range(1 << 40), True, key=lambda n: blocks_in_key(n, bits, k) > 0) - 1


def linked(numbers: Numbers, bits: int, k: int) -> Ints:
    """Link different `numbers` (n,) of `bits` bits that differ by at most k bits, directly or by a chain.

    Returns the index of the first number of each number's component, shape (n,). Needs about 40 bytes per number.
    """
    blocks = blocks_in_key(numbers.size, bits, k)
    cuts = borders(bits, max(1, k + blocks))
    roots = np.arange(numbers.size)
    for key in combinations(range(k + blocks), blocks):
        roots = link_equal(numbers, cuts, key, k, roots)
    return roots


def link_equal(numbers: Numbers, cuts: Sequence[int], key: tuple[int, ...], k: int, roots: Ints) -> Ints:
    """Link the numbers that are equal in the blocks `key` and differ by at most k bits in the others.

    `numbers` (n,) are different and have the blocks of `cuts`, as `borders` returns them. `roots` (n,) are the links
    that are known, as `linked` returns them. Returns `roots` with the new links.
    """
    value = _bits_of(numbers, cuts, key)
    order = np.argsort(value, kind="stable")
    value = value[order]
    starts = np.flatnonzero(np.append(True, value[1:] != value[:-1])) if value.size else np.empty(0, np.int64)
    starts, sizes = _unlinked(starts, np.diff(np.append(starts, value.size)), roots[order])
    others = [block for block in range(len(cuts) - 1) if block not in key]
    bits = sum(cuts[block + 1] - cuts[block] for block in others)
    long = sizes > _longest(bits, k)
    for start, size in zip(starts[long], sizes[long], strict=True):
        run = order[start : start + size]
        roots = _link_long(_bits_of(numbers[run], cuts, others).astype(np.uint64), bits, k, run, roots)
    return _link_short(numbers, k, order, starts[~long], sizes[~long], roots)


def _bits_of(numbers: Numbers, cuts: Sequence[int], blocks: Sequence[int]) -> NDArray[np.unsignedinteger[Any]]:
    """The bits of some blocks side by side, in the smallest unsigned type: numpy sorts 16 bits seven times as fast."""
    found, bits = np.zeros_like(numbers), 0
    for block in blocks:
        width = cuts[block + 1] - cuts[block]
        found |= (numbers >> np.uint64(cuts[block]) & np.uint64((1 << width) - 1)) << np.uint64(bits)
        bits += width
    return found.astype(np.min_scalar_type((1 << bits) - 1))


def _unlinked(starts: Ints, sizes: Ints, roots: Ints) -> tuple[Ints, Ints]:
    """Starts and sizes of the runs of `roots` that have two different roots."""
    if not starts.size:
        return starts, sizes
    several = np.minimum.reduceat(roots, starts) < np.maximum.reduceat(roots, starts)
    return starts[several], sizes[several]


def _link_long(rest: Numbers, bits: int, k: int, run: Ints, roots: Ints) -> Ints:
    """Link the numbers `run`, which differ only in `rest`, numbers of `bits` bits."""
    # Numbers that stand beside each other after sorting are often near. In a run of flat images, which are all near to
    # each other, this alone links nearly all, where comparing all with all would take hours.
    order = np.argsort(rest)
    rest, run = rest[order], run[order]
    near = [(_near(rest[:-distance], rest[distance:], k), distance) for distance in range(1, _NEIGHBOURS + 1)]
    roots = _joined(roots, [(run[found], run[found + distance]) for found, distance in near])
    root, images = np.unique(roots[run], return_counts=True)
    single = np.flatnonzero(roots[run] != root[images.argmax()])
    blocks = blocks_in_key(rest.size, bits, k)
    if single.size * rest.size > _work(rest.size, bits, k, blocks):
        return _joined(roots, [(run, run[linked(rest, bits, k)])])
    step = max(1, _SLICE // rest.size)
    for part in (single[at : at + step] for at in range(0, single.size, step)):
        first, other = np.divmod(_near(rest[part, None], rest, k), rest.size)
        roots = _joined(roots, [(run[part[first]], run[other])])
    return roots


def _link_short(numbers: Numbers, k: int, order: Ints, starts: Ints, sizes: Ints, roots: Ints) -> Ints:
    """Compare all numbers of each run. A run is numbers[order[start : start + size]]."""
    held: list[tuple[Ints, Ints]] = []
    for start, size in _slices(starts, sizes):
        ends = np.cumsum(size)
        index = order[np.repeat(start - (ends - size), size) + np.arange(ends[-1])]
        compared, end = numbers[index], np.repeat(ends, size)
        for distance in range(1, size[0]):
            upto = int(size[size > distance].sum())  # the longest runs stand first
            near = _near(compared[: upto - distance], compared[distance:upto], k)
            near = near[near + distance < end[near]]  # of the same run
            first, other = index[near], index[near + distance]
            new = roots[first] != roots[other]
            if new.any():
                held.append((first[new], other[new]))
                if sum(pairs[0].size for pairs in held) > _HELD:
                    roots, held = _joined(roots, held), []
    return _joined(roots, held)


def _slices(starts: Ints, sizes: Ints) -> Iterator[tuple[Ints, Ints]]:
    """Starts and sizes of the runs, the longest first, in slices of about _SLICE numbers."""
    longest_first = np.argsort(-sizes, kind="stable")
    starts, sizes = starts[longest_first], sizes[longest_first]
    number = np.cumsum(sizes) // _SLICE
    cuts = np.flatnonzero(number[1:] != number[:-1]) + 1
    if sizes.size:
        yield from zip(np.split(starts, cuts), np.split(sizes, cuts), strict=True)


def _joined(roots: Ints, pairs: Sequence[tuple[Ints, Ints]]) -> Ints:
    """`roots` after the numbers of all pairs (index of the first, index of the other) are linked."""
    if not pairs:
        return roots
    first, other = (roots[np.concatenate(side)] for side in zip(*pairs, strict=True))
    if (first == other).all():
        return roots
    nodes, least = component_roots(first, other)
    new = np.arange(roots.size)
    new[nodes] = least
    return new[roots]


_1, _2, _4, _56 = (np.uint64(shift) for shift in (1, 2, 4, 56))
_PAIRS, _FOURS, _EIGHTS, _BYTES = (np.uint64(int(byte * 8, 16)) for byte in ("55", "33", "0f", "01"))


def _near(first: Numbers, other: Numbers, k: int) -> Ints:
    """Indices i (of the flat array) at which first[i] and other[i] differ by at most k bits."""
    # Counts of pairs of bits, of fours, of bytes, then their sum; numpy before 2.0 has no count of bits.
    found = first ^ other
    found -= found >> _1 & _PAIRS
    found = (found & _FOURS) + (found >> _2 & _FOURS)
    found = found + (found >> _4) & _EIGHTS
    found *= _BYTES
    found >>= _56
    return np.flatnonzero(found <= k)
