"""Content hashes: SHA-256 of explicit, versioned facts in one canonical form.

A hash must not change with the machine or the library that computed a number: fitted edges differ in their last bit
between processors, positions between versions of PROJ. So numbers enter with 12 significant digits, and 1 is the
same as 1.0.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

_DIGITS = 12
_PER_DEGREE = 1_000_000_000


def content_digest(kind: str, version: int, facts: Mapping[str, Any]) -> str:
    """SHA-256, hex, of what a thing is: its `kind`, the `version` of the list of facts, and the `facts` themselves.

    Facts are texts, numbers, booleans, None, bytes, arrays, and lists and mappings of these. The order of keys does not
    matter, the order of lists does. A list of `facts` may come as an iterator, and is then never held as a whole.
    TypeError for anything else.
    """
    digest = hashlib.sha256(f"[{_json(kind)},{_json(version)},{{".encode())
    for place, (key, value) in enumerate(
        sorted(((str(key), value) for key, value in facts.items()), key=itemgetter(0))
    ):
        digest.update(f"{',' if place else ''}{_json(key)}:".encode())
        if isinstance(value, Iterator):
            digest.update(b"[")
            for number, entry in enumerate(value):
                digest.update(f"{',' if number else ''}{_json(_canonical(entry))}".encode())
            digest.update(b"]")
        else:
            digest.update(_json(_canonical(value)).encode())
    digest.update(b"}]")
    return digest.hexdigest()


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))


def nanodegrees(degrees: ArrayLike) -> NDArray[np.int64]:
    """Angles as whole numbers of 1e-9 degree (0.1 mm on the ground): many positions, rounded at once."""
    return np.asarray(np.rint(np.asarray(degrees, dtype=np.float64) * _PER_DEGREE), dtype=np.int64)


def _canonical(value: Any) -> Any:
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        rounded = float(f"{float(value):.{_DIGITS - 1}e}")
        return int(rounded) if rounded.is_integer() else rounded
    if isinstance(value, Mapping):
        return {str(key): _canonical(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(entry) for entry in value]
    raise TypeError(f"a fact of type {type(value).__name__} has no canonical form")
