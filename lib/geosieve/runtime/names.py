"""What a message says of a name that is not there: the nearest of those that are, else all."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LISTED = 30


def nearest(name: str, known: Iterable[str], n: int = 3) -> list[str]:
    """Up to `n` of the known names that are alike, the most alike first. Case does not count."""
    folded: dict[str, str] = {}
    for own in known:
        folded.setdefault(own.casefold(), own)
    return [folded[found] for found in difflib.get_close_matches(name.casefold(), folded, n=n, cutoff=0.5)]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Names the known name that is most alike; empty where none is."""
    near = nearest(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else ""


def advice(name: str, known: Iterable[str], what: str) -> str:
    """As `did_you_mean`; where no known name is alike, all of them as "`what`: a, b, c"."""
    names = sorted(set(known))
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return did_you_mean(name, names) or f"{what}: {', '.join(names[:_LISTED]) or 'none'}{more}"
