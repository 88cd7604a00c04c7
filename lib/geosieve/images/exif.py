"""Positions and times from EXIF tags (EXIF 2.32, sections 4.6.5 and 4.6.6). Pure functions on tag values.

Many programs write EXIF carelessly, and files may be hostile: any value may be missing, of a wrong type, or absurd.
`position` raises ValueError with the reason for a fault; `capture_time` returns a warning. If there is no position or
no time at all, they give None.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from geosieve.images.datums import is_wgs84, to_wgs84
from geosieve.images.nothing import NO_DATE, WORDS_FOR_NOTHING

Tags = Mapping[int, Any]

DATE_TIME_ORIGINAL, OFFSET_TIME_ORIGINAL = 36867, 36881  # in the Exif IFD
LAT_REF, LAT, LON_REF, LON, GPS_TIME, STATUS, DATUM, GPS_DATE = 1, 2, 3, 4, 7, 9, 18, 29  # in the GPS IFD

_DATE_TIME = re.compile(r"(\d{4})[:/-](\d\d)[:/-](\d\d)[ T](\d\d):(\d\d):(\d\d)")
_DATE = re.compile(r"(\d{4})[:/-](\d\d)[:/-](\d\d)")
_OFFSET = re.compile(r"([+-])(\d\d):?(\d\d)|Z")
_FIRST_YEAR, _LAST_YEAR = 1826, 2099  # the same as for coordinate lists
# Time zones span -12 to +14 hours. If GPS and local time differ by more, the fix is old or the camera's clock wrong.
_LARGEST_OFFSET = timedelta(hours=14, minutes=30)
# GPS counts weeks with 10 bits (IS-GPS-200, 20.3.3.3.1.1), so an old receiver may be 1024 or 2048 weeks behind.
_ROLLOVER = timedelta(weeks=1024)
_GPS_EPOCH = datetime(1980, 1, 7, tzinfo=UTC)  # one day after GPS time 0, from which a receiver without a fix counts


def position(gps: Tags) -> tuple[float, float] | None:
    """(lat, lon) in WGS-84 degrees from the tags of a GPS IFD; None if it has neither of them.

    ValueError if a hemisphere is missing or unknown; if a value is not three rationals, has a zero denominator or is
    out of range; if the position is the placeholder (0, 0); if the receiver had no fix (status V: the position is then
    the last one known); or if the datum is unknown.
    """
    if LAT not in gps and LON not in gps:
        return None
    if _text(gps.get(STATUS))[:1].upper() == "V":
        raise ValueError("the receiver had no fix (GPSStatus V)")
    lat = _degrees("latitude", gps.get(LAT), gps.get(LAT_REF), "NS", 90)
    lon = _degrees("longitude", gps.get(LON), gps.get(LON_REF), "EW", 180)
    if lat == 0 and lon == 0:
        raise ValueError("position (0, 0) stands for an unknown one")
    name = datum(gps)
    return (lat, lon) if name is None else to_wgs84(lat, lon, name)


def datum(gps: Tags) -> str | None:
    """Name of the position's geodetic datum; None for WGS-84, which is assumed if no datum is named."""
    name = _text(gps.get(DATUM))
    return None if is_nothing(name) or is_wgs84(name) else name


def is_nothing(text: str) -> bool:
    """Whether a text is empty or a placeholder for a missing value."""
    return not text or text.lower() in WORDS_FOR_NOTHING


def is_no_date(value: Any) -> bool:
    """Whether a time tag exists and contains a placeholder for a missing date."""
    text = _text(value)
    return bool(text) and (is_nothing(text) or re.match(NO_DATE, text) is not None or not text.strip("0:/- "))


def _degrees(name: str, value: Any, reference: Any, signs: str, limit: int) -> float:
    """Signed degrees from (degrees, minutes, seconds) and a hemisphere; the second letter of `signs` is negative.

    ValueError as in `position`.
    """
    letter = _text(reference)[:1].upper()
    if not letter or letter not in signs:
        raise ValueError(f"{name}: hemisphere {_text(reference)[:20]!r} is neither {signs[0]} nor {signs[1]}")
    parts = _rationals(value)
    if parts is None:
        raise ValueError(f"{name} is no three rationals: {str(value)[:60]}")
    degrees, minutes, seconds = parts
    # 60 is allowed: rounding makes 59.9999" to 60.00".
    inside = 0 <= degrees <= limit and 0 <= minutes <= 60 and 0 <= seconds <= 60  # false also for NaN
    total = degrees + minutes / 60 + seconds / 3600
    if not inside or total > limit:
        raise ValueError(f"{name} is out of range: {degrees:g}° {minutes:g}' {seconds:g}\"")
    return -total if letter == signs[1] else total


def capture_time(exif: Tags, gps: Tags) -> tuple[datetime | None, str | None, str]:
    """When the image was taken: (UTC time or None, warning code or None, message of the warning or "").

    DateTimeOriginal with OffsetTimeOriginal has priority, then the GPS time, then DateTimeOriginal alone. Warnings:

    - `no_time_zone`: there is only a local time; it is returned as if it were UTC.
    - `gps_week_rollover`: the GPS time was 1024 or 2048 weeks behind the local time, and was corrected.
    - `time_conflict`: GPS and local time differ by more than any time zone; the GPS time is returned.
    - `bad_time`: there are times, but none can be read.
    """
    local, offset = _local_time(exif.get(DATE_TIME_ORIGINAL)), _offset(exif.get(OFFSET_TIME_ORIGINAL))
    fix = _gps_time(gps)
    if local is not None and offset is not None:
        return local - offset, None, ""
    if local is not None and fix is not None:
        weeks = round((local - fix) / _ROLLOVER)
        true = fix + weeks * _ROLLOVER
        if weeks in (1, 2) and abs(true - local) <= _LARGEST_OFFSET:
            message = f"GPS time {fix:%Y-%m-%d %H:%M:%S} is {1024 * weeks} weeks behind the camera's; set right"
            return true, "gps_week_rollover", message
    if local is not None and fix is not None and abs(fix - local) > _LARGEST_OFFSET:
        return fix, "time_conflict", f"GPS time {fix:%Y-%m-%d %H:%M:%S}, local time {local:%Y-%m-%d %H:%M:%S}"
    if fix is not None:
        return fix, None, ""
    if local is not None:
        return local, "no_time_zone", "the time is local time; its zone is not known"
    texts = [_text(tag) for tag in (exif.get(DATE_TIME_ORIGINAL), gps.get(GPS_DATE))]
    given = " ".join(text for text in texts if text and not is_no_date(text))
    if given:
        return None, "bad_time", f"no time can be read from {given[:60]!r}"
    return None, None, ""


def _local_time(value: Any) -> datetime | None:
    """A local time, with UTC as a stand-in for its unknown zone; None if it cannot be read."""
    match = None if is_no_date(value) else _DATE_TIME.fullmatch(_text(value))
    return _time(*match.groups()) if match else None


def _offset(value: Any) -> timedelta | None:
    """Offset of local time from UTC; None if it cannot be read or no time zone has it."""
    match = _OFFSET.fullmatch(_text(value))
    if not match:
        return None
    if match[0] == "Z":
        return timedelta(0)
    offset = timedelta(hours=int(match[2]), minutes=int(match[3]))
    if offset > _LARGEST_OFFSET:
        return None
    return -offset if match[1] == "-" else offset


def _gps_time(gps: Tags) -> datetime | None:
    """UTC time of the GPS fix; None if it cannot be read or the receiver had no fix yet."""
    match, parts = _DATE.fullmatch(_text(gps.get(GPS_DATE))), _rationals(gps.get(GPS_TIME))
    if match is None or parts is None or not all(math.isfinite(part) for part in parts):
        return None
    time = None if is_no_date(match[0]) else _time(*match.groups(), *parts)
    return time if time is not None and time >= _GPS_EPOCH else None


def _time(*parts: str | float) -> datetime | None:
    """UTC time from year, month, day, hour, minute and second; None if there is no such time."""
    year, month, day, hour, minute, second = (int(part) for part in parts)
    try:
        time = datetime(year, month, day, hour, minute, min(second, 59), tzinfo=UTC)  # 60 is a leap second
    except (ValueError, OverflowError):
        return None
    return time if _FIRST_YEAR <= year <= _LAST_YEAR else None


def _rationals(value: Any) -> tuple[float, float, float] | None:
    """A tuple of three numbers as floats, NaN for a zero denominator; None for anything else, also text and bytes."""
    if not isinstance(value, tuple) or len(value) != 3:
        return None
    try:
        first, second, third = (float(part) for part in value)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return first, second, third


def _text(value: Any) -> str:
    """A tag's text without padding; bytes are read as Latin-1. Empty if the tag is no text."""
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    return value.strip("\0 \t\r\n") if isinstance(value, str) else ""
