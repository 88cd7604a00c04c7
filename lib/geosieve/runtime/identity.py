"""Content hashes: SHA-256 of explicit, versioned facts in one canonical form.

A hash must not change with the machine or the library that computed a number: fitted edges differ in their last bit
between processors, positions between versions of PROJ. So numbers enter with 12 significant digits, and 1 is the
same as 1.0.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

_DIGITS = 12
_PER_DEGREE = 1_000_000_000


def content_digest(kind: str, version: int, facts: Mapping[str, Any]) -> str:
    """SHA-256, hex, of what a thing is: its `kind`, the `version` of the list of facts, and the `facts` themselves.

    Facts are texts, numbers, booleans, None, bytes, arrays, and lists and mappings of these. The order of keys does not
    matter, the order of lists does. TypeError for anything else.
    """
    text = json.dumps([kind, version, _canonical(facts)], sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


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
