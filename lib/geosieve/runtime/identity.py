"""Content hashes: SHA-256 of explicit, versioned facts in one canonical form.

A hash must not depend on the machine or the library that computed a number: the last bit of fitted edges differs
between processors, and positions differ between versions of PROJ. So floating-point numbers are rounded to 12
significant digits, and 1 and 1.0 give the same hash.
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
    """Return the SHA-256, in hex, of the `kind` of an object, the `version` of its list of facts, and the `facts`.

    Facts are strings, numbers, booleans, None, bytes, arrays, and lists and mappings of these; any other type raises
    TypeError. The order of keys does not matter, the order of lists does. A value of `facts` may be an iterator: it
    gives the same hash as a list, but is never in memory as a whole.
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
    """Round angles in degrees to integers in units of 1e-9 degree (0.1 mm on the ground), in an array of any shape."""
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
