"""Text from data, as it is shown: never markup, and with characters made visible that would change what is read."""

from __future__ import annotations

import json
import re
from typing import Any

from pyspark.sql import Column
from pyspark.sql import functions as F

_LONGEST, _HEAD, _TAIL = 200, 120, 40  # what is left of a longer name is not cut again

# Controls, line separators, lone halves of a pair, zero-width space and mark, and what turns the direction of writing.
_HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_IN_SCRIPT = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}


def shown(text: str) -> str:
    """A name from data as it is shown: at most some 200 characters, and hidden ones by their numbers.

    A longer one loses its middle and tells its length. With marks of direction in it, `photo\\u202egpj.exe` would be
    read as another name.
    """
    if len(text) > _LONGEST:
        text = f"{text[:_HEAD]}…{text[-_TAIL:]} ({len(text):,} characters)"
    return _HIDDEN.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", text)


def cut(column: str) -> Column:
    """A column of text, cut as `shown` cuts it: the driver need not hold longer ones."""
    head, tail, length = F.substring(column, 1, _HEAD), F.substring(column, -_TAIL, _TAIL), F.length(column)
    short = F.concat(head, F.lit("…"), tail, F.lit(" ("), F.format_number(length, 0), F.lit(" characters)"))
    return F.when(length > _LONGEST, short).otherwise(F.col(column))


def script_json(data: Any) -> str:
    """JSON that may stand inside a script element, whatever texts are in it. ValueError for NaN or infinity."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.translate(_IN_SCRIPT)
