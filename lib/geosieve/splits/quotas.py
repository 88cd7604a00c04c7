"""How many images of each class a split keeps, in whole numbers and without rounding errors."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from math import floor

from geosieve.runtime.errors import InputError


def capped(counts: Mapping[str | None, int], shares: Mapping[str, Fraction]) -> dict[str, int]:
    """The greatest numbers of the capped classes that respect the caps: kept <= share * (all that is kept).

    `counts`: images by class (None: of no class); those without a share keep all. InputError if nothing could be kept.
    """
    free = sum(n for name, n in counts.items() if name not in shares)
    bound = _bound(counts, shares)
    kept = {name: min(counts.get(name, 0), floor(share * bound)) for name, share in shares.items()}
    # From there down to the greatest whole numbers that agree with their own total.
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
    """The total if images could be divided: T = (images of classes below their cap) / (1 - shares of the others)."""
    total = Fraction(sum(counts.values()))
    below, above = total, Fraction(0)
    # A class is at its cap below T = count / share; the fullest ones, for their share, are so first.
    for name in sorted(shares, key=lambda name: counts.get(name, 0) / shares[name], reverse=True):
        if counts.get(name, 0) <= shares[name] * total:
            break
        below, above = below - counts.get(name, 0), above + shares[name]
        total = below / (1 - above)
    return total


def balanced(counts: Mapping[str, int], images: int | None) -> int:
    """Images of every class: `images`, or as many as the smallest has. InputError if a class has too few, or none."""
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
