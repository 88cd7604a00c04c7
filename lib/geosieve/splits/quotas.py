"""How many images of each class a split keeps. The arithmetic is exact."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from math import floor

from geosieve.runtime.errors import InputError


def capped(counts: Mapping[str | None, int], shares: Mapping[str, Fraction]) -> dict[str, int]:
    """How many images to keep of each capped class: as many as possible with kept <= share * (images kept in total).

    `counts`: images by class; the key None counts images without a class. Classes without a share keep all images.
    InputError if no image could be kept.
    """
    free = sum(n for name, n in counts.items() if name not in shares)
    bound = _bound(counts, shares)
    kept = {name: min(counts.get(name, 0), floor(share * bound)) for name, share in shares.items()}
    # Rounding down lowers the total and with it the caps: repeat until the numbers satisfy their own total.
    while (fewer := _within(kept, shares, free + sum(kept.values()))) != kept:
        kept = fewer
    if free + sum(kept.values()) == 0 < sum(counts.values()):
        raise InputError(
            "the caps leave nothing: every image is of a capped class, and the shares sum to less than 1",
            hint="raise a share, or name fewer classes",
        )
    return kept


def _within(kept: Mapping[str, int], shares: Mapping[str, Fraction], total: int) -> dict[str, int]:
    return {name: min(n, floor(shares[name] * total)) for name, n in kept.items()}


def _bound(counts: Mapping[str | None, int], shares: Mapping[str, Fraction]) -> Fraction:
    """The total T if fractions of images were allowed: T = (images of classes below their cap) / (1 - other shares)."""
    total = Fraction(sum(counts.values()))
    below, above = total, Fraction(0)
    # A class reaches its cap when T falls below count / share, so classes with the largest quotient come first.
    for name in sorted(shares, key=lambda name: counts.get(name, 0) / shares[name], reverse=True):
        if counts.get(name, 0) <= shares[name] * total:
            break
        below, above = below - counts.get(name, 0), above + shares[name]
        total = below / (1 - above)
    return total


def balanced(counts: Mapping[str, int], images: int | None) -> int:
    """How many images to keep of every class: `images`, or the size of the smallest class if None.

    InputError if a class has fewer than `images`, or none.
    """
    empty = sorted(name for name, n in counts.items() if n == 0)
    if empty:
        raise InputError(
            f"no image in {', '.join(repr(name) for name in empty[:10])}: nothing to balance",
            hint="name the regions to balance, without these",
        )
    smallest = min(counts, key=lambda name: (counts[name], name))
    if images is not None and images > counts[smallest]:
        raise InputError(
            f"{images} images are asked of every region, but {smallest!r} has {counts[smallest]}",
            hint="ask for fewer, or leave `images` out to take as many as the smallest region has",
        )
    return counts[smallest] if images is None else images
