"""Positions in XMP packets (XMP specification, part 2, section 1.2.7.4: GPSCoordinate), as tags of an EXIF GPS IFD.

No XML parser reads the packet, for files are hostile: nothing is expanded or fetched, and a search takes linear time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

MAX_BYTES = 1 << 20
"""A longer packet is not searched. Writers' own are a few kilobytes."""

_NAMES = {"GPSStatus": 9, "GPSMapDatum": 18}
_COORDINATES = {"GPSLatitude": (1, 2), "GPSLongitude": (3, 4)}  # tags of the hemisphere and the value
_MOST = 100  # characters of a value

# DDD,MM.mmk or DDD,MM,SSk. Some write decimal degrees, or rationals as EXIF has them, or k as a property of its own.
_NUMBER = r"(\d{1,9}(?:\.\d{1,20}|/\d{1,9})?)"
_BETWEEN = r"[,\s]\s{0,9}"
_COORDINATE = re.compile(rf"{_NUMBER}(?:{_BETWEEN}{_NUMBER}(?:{_BETWEEN}{_NUMBER})?)?\s{{0,9}}([NSEWnsew]?)", re.ASCII)


def gps_tags(packet: bytes) -> Mapping[int, Any]:
    """The tags of a GPS IFD that a packet holds; none if it holds no position or is too long.

    A value that cannot be read, or that stands there twice and differs, is given as its text.
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
    over, _, under = text.partition("/")
    return float(over) if not under else float(over) / float(under) if float(under) else float("nan")


def _value(text: str, name: str) -> str | None:
    """What stands as an element or an attribute of this name, whatever its prefix."""
    form = rf":{name}\s{{0,20}}(?:=\s{{0,20}}[\"']([^\"'<>]{{0,{_MOST}}})[\"']|>([^<>]{{0,{_MOST}}})</)"
    values = {(attribute or element).strip() for attribute, element in re.findall(form, text)} - {""}
    return " and ".join(sorted(values)) if values else None
