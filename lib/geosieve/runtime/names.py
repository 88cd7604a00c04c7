"""Hints for messages about an unknown name: the most similar known name or, if none is similar, all known names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LISTED = 30


def nearest(name: str, known: Iterable[str], n: int = 3) -> list[str]:
    """Return up to `n` known names that are similar to `name`, the most similar first. Case is ignored."""
    folded: dict[str, str] = {}
    for own in known:
        folded.setdefault(own.casefold(), own)
    return [folded[found] for found in difflib.get_close_matches(name.casefold(), folded, n=n, cutoff=0.5)]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a question that suggests the most similar known name; empty if none is similar."""
    near = nearest(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else ""


def advice(name: str, known: Iterable[str], what: str) -> str:
    """Return the text of `did_you_mean` or, if no known name is similar, the list "`what`: a, b, c" of the known names.

    The list has at most 30 names and then the number of the others.
    """
    names = sorted(set(known))
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return did_you_mean(name, names) or f"{what}: {', '.join(names[:_LISTED]) or 'none'}{more}"
