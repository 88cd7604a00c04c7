"""Read positions from XMP packets, as tags of an EXIF GPS IFD.

Coordinates follow the XMP specification, part 2, section 1.2.7.4 (GPSCoordinate). Files may be hostile, so regular
expressions search the packet instead of an XML parser: no entity is expanded, nothing is fetched, and a search takes
linear time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

MAX_BYTES = 1 << 20
"""Longer packets are not searched. Usual packets have a few kilobytes."""

_NAMES = {"GPSStatus": 9, "GPSMapDatum": 18}
_COORDINATES = {"GPSLatitude": (1, 2), "GPSLongitude": (3, 4)}  # tags of hemisphere and value
_MOST = 100  # characters of a value, at most

# DDD,MM.mmk or DDD,MM,SSk, where k is the hemisphere. Some programs write decimal degrees, rationals as in EXIF, or k
# as a separate property.
_NUMBER = r"(\d{1,9}(?:\.\d{1,20}|/\d{1,9})?)"
_BETWEEN = r"[,\s]\s{0,9}"
_COORDINATE = re.compile(rf"{_NUMBER}(?:{_BETWEEN}{_NUMBER}(?:{_BETWEEN}{_NUMBER})?)?\s{{0,9}}([NSEWnsew]?)", re.ASCII)


def gps_tags(packet: bytes) -> Mapping[int, Any]:
    """Tags of an EXIF GPS IFD from an XMP packet; empty if it has no position or is longer than MAX_BYTES.

    Coordinates are tuples (degrees, minutes, seconds). A value that cannot be parsed, or that occurs several times with
    different contents, is returned as text.
    """
    if len(packet) > MAX_BYTES:
        return {}
    text = packet.decode("utf-8", "replace")
    tags: dict[int, Any] = {}
    for name, (reference, value) in _COORDINATES.items():
        found = _value(text, name)
        match = _COORDINATE.fullmatch(found or "")
        if found is not None:
            letter = match[4] if match else found[-1:] if found[-1:].isalpha() else ""
            tags[reference], tags[value] = letter or _value(text, f"{name}Ref"), found
        if match is not None:
            tags[value] = tuple(_number(part or "0") for part in match.groups()[:3])
    if tags:
        tags |= {tag: found for name, tag in _NAMES.items() if (found := _value(text, name)) is not None}
    return tags


def _number(text: str) -> float:
    """A decimal number or a rational; NaN for a zero denominator."""
    over, _, under = text.partition("/")
    return float(over) if not under else float(over) / float(under) if float(under) else float("nan")


def _value(text: str, name: str) -> str | None:
    """Value of the element or attribute with this name and any prefix; None if there is none or it is empty.

    Different values are joined by " and ".
    """
    form = rf":{name}\s{{0,20}}(?:=\s{{0,20}}[\"']([^\"'<>]{{0,{_MOST}}})[\"']|>([^<>]{{0,{_MOST}}})</)"
    values = {(attribute or element).strip() for attribute, element in re.findall(form, text)} - {""}
    return " and ".join(sorted(values)) if values else None
