"""Link numbers that differ by few bits. Arrays only, no Spark.

If two numbers differ by at most k bits and their bits are divided into k + c blocks, at least c blocks are equal
(pigeonhole rule). So for each choice of c blocks, only numbers that are equal in these blocks are compared (Manku, Jain
and Das Sarma: Detecting Near-Duplicates for Web Crawling, WWW 2007). With c = 1 there are few choices, but many numbers
are equal in one block; a higher c makes more choices of fewer numbers. `blocks_in_key` weighs both.

Hashes of images are not uniform: many flat images may be equal in most blocks. So a run of numbers that are equal in
the chosen blocks, if it is long, is treated in the same way by its other bits. And numbers of one component are not
compared with each other where most of a run belongs to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
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
_TURNS = 4  # orders in which a long run is sorted, to compare neighbours
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


def linked(numbers: Numbers, bits: int, k: int) -> Ints:
    """Link different `numbers` (n,) of `bits` bits that differ by at most k bits, directly or by a chain.

    Returns the index of the first number of each number's component, shape (n,). Needs about 40 bytes per number.
    """
    blocks = blocks_in_key(numbers.size, bits, k)
    keys = combinations(range(k + blocks), blocks)
    return linked_by(keys, numbers, borders(bits, max(1, k + blocks)), k)


def linked_by(keys: Iterable[tuple[int, ...]], numbers: Numbers, cuts: Sequence[int], k: int) -> Ints:
    """As `linked`, but only numbers that are equal in all blocks of one of the keys are linked with each other.

    Blocks are those of `cuts`, as `borders` returns them.
    """
    roots = np.arange(numbers.size)
    for key in keys if numbers.size > 1 else ():
        roots = _link_equal(numbers, cuts, key, k, roots)
    return roots


def _link_equal(numbers: Numbers, cuts: Sequence[int], key: tuple[int, ...], k: int, roots: Ints) -> Ints:
    """`roots` with links between the numbers that are equal in the blocks `key` and differ by at most k bits."""
    value = _bits_of(numbers, cuts, key)
    order = np.argsort(value, kind="stable")
    starts = np.flatnonzero(np.append(True, np.diff(value[order]) != 0))
    starts, sizes = _unlinked(starts, np.diff(np.append(starts, value.size)), roots[order])
    long = sizes * sizes / 2 > _CALLS
    others = [block for block in range(len(cuts) - 1) if block not in key]
    bits = sum(cuts[block + 1] - cuts[block] for block in others)
    pairs = []
    for start, size in zip(starts[long], sizes[long], strict=True):
        run = order[start : start + size]
        rest = _bits_of(numbers[run], cuts, others).astype(np.uint64)
        pairs.append((run, run[_roots_of_run(rest, bits, k, roots[run])]))
    return _link_short(numbers, k, order, starts[~long], sizes[~long], _joined(roots, pairs))


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
    several = np.minimum.reduceat(roots, starts) < np.maximum.reduceat(roots, starts)
    return starts[several], sizes[several]


def _roots_of_run(rest: Numbers, bits: int, k: int, known: Ints) -> Ints:
    """As `linked`, for the numbers `rest` (n,) of a long run, of which those of equal `known` are linked already."""
    _, first, inverse = np.unique(known, return_index=True, return_inverse=True)
    # Numbers that stand beside each other after sorting are often near. In a run of flat images, which are all near to
    # each other, this alone links nearly all, where comparing all with all would take hours. The bits are turned, since
    # numbers that differ in a high bit alone stand far from each other.
    pairs = []
    for turn in range(0, bits, -(-bits // _TURNS)):
        turned = rest >> np.uint64(turn) | rest << np.uint64(bits - turn) & np.uint64((1 << bits) - 1)
        order = np.argsort(turned)
        for distance in (1, 2):
            near = _near(rest[order[:-distance]], rest[order[distance:]], k)
            pairs.append((order[near], order[near + distance]))
    roots = _joined(first[inverse], pairs)
    root, members = np.unique(roots, return_counts=True)
    apart = np.flatnonzero(roots != root[members.argmax()])
    blocks = blocks_in_key(rest.size, bits, k)
    if blocks and apart.size * rest.size > _work(rest.size, bits, k, blocks):
        return _joined(roots, [(np.arange(rest.size), linked(rest, bits, k))])
    step = max(1, _SLICE // rest.size)
    for part in (apart[at : at + step] for at in range(0, apart.size, step)):
        near, other = np.divmod(_near(rest[part, None], rest, k), rest.size)
        roots = _joined(roots, [(part[near], other)])
    return roots


def _link_short(numbers: Numbers, k: int, order: Ints, starts: Ints, sizes: Ints, roots: Ints) -> Ints:
    """Compare all numbers of each run. A run is numbers[order[start : start + size]]."""
    pairs: list[tuple[Ints, Ints]] = []
    held = 0
    for start, size in _slices(starts, sizes):
        ends = np.cumsum(size)
        index = order[np.repeat(start - (ends - size), size) + np.arange(ends[-1])]
        compared = numbers[index]
        for distance in range(1, size[0]):
            upto = ends[np.searchsorted(-size, -distance) - 1]  # the longest runs stand first
            # Some of these pairs are of two runs; they are near to each other all the same.
            near = _near(compared[: upto - distance], compared[distance:upto], k)
            first, other = index[near], index[near + distance]
            new = roots[first] != roots[other]
            pairs.append((first[new], other[new]))
            held += pairs[-1][0].size
            if held > _HELD:
                roots, pairs, held = _joined(roots, pairs), [], 0
    return _joined(roots, pairs)


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
