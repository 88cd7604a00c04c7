"""Positions and times from EXIF tags (EXIF 2.32, sections 4.6.5 and 4.6.6). Pure functions on tag values.

Writers of EXIF are careless and files may be hostile: every value may be missing, of another type, or absurd.
A fault is raised as ValueError with its reason; missing is not a fault and gives None.
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
_FIRST_YEAR, _LAST_YEAR = 1826, 2099  # as of coordinate lists
# Time zones span -12 to +14 hours; a GPS time further off is an old fix, or the camera's clock is wrong.
_LARGEST_OFFSET = timedelta(hours=14, minutes=30)
# GPS counts weeks with 10 bits (IS-GPS-200, 20.3.3.3.1.1): an old receiver is 1024 weeks late, or twice that.
_ROLLOVER = timedelta(weeks=1024)
_GPS_EPOCH = datetime(1980, 1, 7, tzinfo=UTC)  # a receiver without a fix counts from the day before


def position(gps: Tags) -> tuple[float, float] | None:
    """(lat, lon) in degrees of WGS-84 from a GPS IFD; None if it holds neither.

    ValueError: a hemisphere is missing or unknown, a value is no three rationals, has a zero denominator or lies
    out of range, the position is the placeholder (0, 0), the receiver had no fix (status V: what it writes then is
    the last place it knew), or the datum is not known.
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
    """The name of the datum in which the position is given; None for WGS-84, also where none is named."""
    name = _text(gps.get(DATUM))
    return None if is_nothing(name) or is_wgs84(name) else name


def is_nothing(text: str) -> bool:
    """Whether a text is empty or stands for nothing."""
    return not text or text.lower() in WORDS_FOR_NOTHING


def is_no_date(value: Any) -> bool:
    """Whether a time tag is there and holds what stands for no date."""
    text = _text(value)
    return bool(text) and (is_nothing(text) or re.match(NO_DATE, text) is not None or not text.strip("0:/- "))


def _degrees(name: str, value: Any, reference: Any, signs: str, limit: int) -> float:
    """Signed degrees of (degrees, minutes, seconds) and a hemisphere, of which the second letter is negative."""
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
    """When the picture was taken: (UTC time or None, warning code or None, the warning's message).

    DateTimeOriginal with OffsetTimeOriginal comes first, then the GPS time, then DateTimeOriginal alone, which is
    local time and taken as it is (`no_time_zone`). `gps_week_rollover`: the GPS time is 1024 weeks behind the local
    one, or twice that, and is set right. `bad_time`: there are times, but none can be read. `time_conflict`: GPS and
    local time differ by more than any time zone.
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
    match = None if is_no_date(value) else _DATE_TIME.fullmatch(_text(value))
    return _time(*match.groups()) if match else None


def _offset(value: Any) -> timedelta | None:
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
    match, parts = _DATE.fullmatch(_text(gps.get(GPS_DATE))), _rationals(gps.get(GPS_TIME))
    if match is None or parts is None or not all(math.isfinite(part) for part in parts):
        return None
    time = None if is_no_date(match[0]) else _time(*match.groups(), *parts)
    return time if time is not None and time >= _GPS_EPOCH else None


def _time(*parts: str | float) -> datetime | None:
    """Year to second as a UTC time; None if there is no such time."""
    year, month, day, hour, minute, second = (int(part) for part in parts)
    try:
        time = datetime(year, month, day, hour, minute, min(second, 59), tzinfo=UTC)  # 60 is a leap second
    except (ValueError, OverflowError):
        return None
    return time if _FIRST_YEAR <= year <= _LAST_YEAR else None


def _rationals(value: Any) -> tuple[float, float, float] | None:
    """Three numbers, of which a zero denominator makes NaN; None for anything else, text and bytes included."""
    if not isinstance(value, tuple) or len(value) != 3:
        return None
    try:
        first, second, third = (float(part) for part in value)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return first, second, third


def _text(value: Any) -> str:
    """A tag's text without the padding that cameras leave; bytes are Latin-1."""
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    return value.strip("\0 \t\r\n") if isinstance(value, str) else ""
