"""Positions and times in EXIF, as cameras write them and as they should not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from geosieve.images.exif import capture_time, datum, position

PARIS = {1: "N", 2: (48.0, 51.0, 30.0), 3: "E", 4: (2.0, 17.0, 40.2)}


def test_degrees_minutes_seconds_add_up_in_sixtieths() -> None:
    # 48 + 51/60 + 30/3600; 2 + 17/60 + 40.2/3600
    assert position(PARIS) == pytest.approx((48.858333333, 2.2945), abs=1e-8)


def test_south_and_west_are_negative() -> None:
    assert position({**PARIS, 1: "S", 3: "W"}) == pytest.approx((-48.858333333, -2.2945), abs=1e-8)


@pytest.mark.parametrize("reference", ["N\0", b"N\0", " n ", "North"])
def test_a_hemisphere_is_its_first_letter_whatever_the_padding(reference: object) -> None:
    assert position({**PARIS, 1: reference}) == pytest.approx((48.858333333, 2.2945), abs=1e-8)


def test_rounded_sixty_seconds_are_a_full_minute() -> None:
    assert position({**PARIS, 2: (48.0, 51.0, 60.0)}) == pytest.approx((48 + 52 / 60, 2.2945))


def test_a_file_without_position_is_no_fault() -> None:
    assert position({}) is None
    assert position({5: b"\0", 6: 35.0}) is None  # an altitude alone


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({1: None}, "hemisphere"),
        ({3: "X"}, "hemisphere"),
        ({3: "N"}, "hemisphere"),
        ({2: (48.0, 60.5, 0.0)}, "range"),
        ({2: (48.0, 10.0, 61.0)}, "range"),
        ({2: (90.0, 0.0, 1.0)}, "range"),
        ({4: (180.0, 30.0, 0.0)}, "range"),
        ({2: (-48.0, 1.0, 0.0)}, "range"),
        ({2: (float("nan"), 0.0, 0.0)}, "range"),  # a zero denominator, as Pillow gives it
        ({2: (float("inf"), 0.0, 0.0)}, "range"),
        ({2: (48.0, 51.0)}, "rationals"),
        ({2: 48.85}, "rationals"),
        ({2: "485"}, "rationals"),
        ({2: b"485"}, "rationals"),
        ({2: (48.0, "x", 0.0)}, "rationals"),
        ({2: None}, "rationals"),
        ({2: (0.0, 0.0, 0.0), 4: (0.0, 0.0, 0.0)}, "unknown"),
    ],
)
def test_a_faulty_position_is_refused_with_its_reason(change: dict[int, object], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        position({**PARIS, **change})


def test_time_with_its_zone_becomes_utc() -> None:
    exif = {36867: "2022:08:14 14:12:31", 36881: "+03:00"}
    assert capture_time(exif, {}) == (datetime(2022, 8, 14, 11, 12, 31, tzinfo=UTC), None, "")


def test_gps_time_is_utc_and_serves_where_the_zone_is_unknown() -> None:
    exif, gps = {36867: "2015:04:10 20:12:23"}, {29: "2015:04:10", 7: (18.0, 12.0, 22.06)}
    assert capture_time(exif, gps) == (datetime(2015, 4, 10, 18, 12, 22, tzinfo=UTC), None, "")


def test_local_time_alone_is_kept_with_a_warning() -> None:
    time, code, _ = capture_time({36867: "2005:12:14 14:39:47\0"}, {})
    assert (time, code) == (datetime(2005, 12, 14, 14, 39, 47, tzinfo=UTC), "no_time_zone")


def test_a_gps_time_no_zone_explains_is_reported() -> None:
    exif, gps = {36867: "2013:01:20 18:54:08"}, {29: "2013:01:19", 7: (15.0, 50.0, 9.0)}
    time, code, _ = capture_time(exif, gps)
    assert (time, code) == (datetime(2013, 1, 19, 15, 50, 9, tzinfo=UTC), "time_conflict")


@pytest.mark.parametrize("blank", ["0000:00:00 00:00:00", "    :  :     :  :  ", "", None])
def test_an_unset_clock_is_no_time_and_no_fault(blank: str | None) -> None:
    assert capture_time({36867: blank}, {29: "0000:00:00", 7: (0.0, 0.0, 0.0)}) == (None, None, "")


@pytest.mark.parametrize("text", ["2015:13:45 00:00:00", "1212:01:01 00:00:00", "yesterday", "2014:09:259"])
def test_a_time_nobody_can_read_is_reported(text: str) -> None:
    time, code, _ = capture_time({36867: text}, {})
    assert (time, code) == (None, "bad_time")


@pytest.mark.parametrize(
    "gps",
    [
        {29: "2015:04:10", 7: (float("nan"), 0.0, 0.0)},
        {29: "2015:04:10", 7: (1e300, 0.0, 0.0)},
        {29: "2015:04:10", 7: (24.0, 0.0, 0.0)},
        {29: "2015:04:10"},
        {29: 5, 7: "xyz"},
    ],
)
def test_a_damaged_gps_time_leaves_the_local_one(gps: dict[int, object]) -> None:
    assert capture_time({36867: "2015:04:10 20:12:23"}, gps)[1] == "no_time_zone"


def test_a_datum_that_is_known_is_transformed() -> None:
    # pyproj: EPSG:4301 to EPSG:4326; 464 m
    tokyo = {1: "N", 2: (35.0, 40.0, 40.2), 3: "E", 4: (139.0, 46.0, 13.2)}
    for name in ("TOKYO", "Tokyo\0\0", b"tokyo mean"):
        assert position({**tokyo, 18: name}) == pytest.approx((35.68107, 139.76710), abs=1e-5)
        assert datum({18: name}) is not None
    # NAD27 to WGS-84 in Kansas: longitudes shift by about 30 m to the west (NGA TR 8350.2)
    lat, lon = position({1: "N", 2: (39.0, 0.0, 0.0), 3: "W", 4: (98.0, 0.0, 0.0), 18: "NAD-27"}) or (0, 0)
    assert abs(lat - 39) < 3e-4 and -98.0005 < lon < -98.0002


@pytest.mark.parametrize(
    "name",
    [
        "WGS-84",
        "WGS84",
        "GCS_WGS_1984",
        "World Geodetic System 1984",
        "wgs 84\0",
        "WGS-84   ",
        "WGS 1984",
        "WGS-84 (G1762)",
        "",
        " ",
        "None",
    ],
)
def test_wgs84_is_left_as_it_is_however_it_is_written(name: str) -> None:
    assert position({**PARIS, 18: name}) == position(PARIS) and datum({18: name}) is None


@pytest.mark.parametrize(
    ("name", "metres"),
    [("ITRF2014", (0, 0.01)), ("RGF93", (0, 0.01)), ("PZ-90", (1, 10)), ("NTF", (10, 200)), ("PSAD56", (200, 500))],
)
def test_datums_of_satellites_and_countries(name: str, metres: tuple[float, float]) -> None:
    """PROJ's own shifts at Paris, in their order of size: a frame of today, a Russian one of 1990, older ones."""
    lat, lon = position({**PARIS, 18: name}) or (0, 0)
    old_lat, old_lon = position(PARIS) or (0, 0)
    shift = 111_195 * np.hypot(lat - old_lat, (lon - old_lon) * np.cos(np.radians(lat)))
    assert metres[0] <= shift <= metres[1]


@pytest.mark.parametrize("name", ["GCJ-02", "MARS 2000", "xx"])
def test_a_position_in_an_unknown_datum_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="datum"):
        position({**PARIS, 18: name})


def test_a_receiver_without_fix_has_no_position() -> None:
    with pytest.raises(ValueError, match="no fix"):
        position({**PARIS, 9: "V\0"})
    assert position({**PARIS, 9: "A"}) == position(PARIS)


@pytest.mark.parametrize("weeks", [1024, 2048])
def test_a_gps_week_rollover_is_set_right(weeks: int) -> None:
    true = datetime(2021, 7, 1, 10, 0, 0, tzinfo=UTC)
    late = true - timedelta(weeks=weeks)
    exif = {36867: "2021:07:01 12:00:00"}
    gps = {29: f"{late:%Y:%m:%d}", 7: (10.0, 0.0, 0.0)}
    time, code, message = capture_time(exif, gps)
    assert (time, code, str(weeks) in message) == (true, "gps_week_rollover", True)
    # 19.62 years by the calendar, from one minute before midnight to the day after it.
    gps |= {29: "1999:08:21", 7: (23.0, 59.0, 42.0)}
    assert capture_time({36867: "2019:04:07 01:59:42"}, gps)[0] == datetime(2019, 4, 6, 23, 59, 42, tzinfo=UTC)
    gps[29] = f"{late - timedelta(days=2):%Y:%m:%d}"
    assert capture_time(exif, gps)[1] == "time_conflict"


@pytest.mark.parametrize(
    "text", ["1899:12:30 00:00:00", "1899-12-30 11:30:00", "0000:00:00 00:00:00", "unknown", "nan"]
)
def test_day_zero_of_spreadsheets_and_words_are_no_date(text: str) -> None:
    assert capture_time({36867: text}, {}) == (None, None, "")
    fix = capture_time({36867: text}, {29: "2015:04:10", 7: (18.0, 12.0, 22.0)})
    assert fix == (datetime(2015, 4, 10, 18, 12, 22, tzinfo=UTC), None, "")


def test_a_photograph_of_1890_has_its_time() -> None:
    assert capture_time({36867: "1890:05:06 07:08:09"}, {})[0] == datetime(1890, 5, 6, 7, 8, 9, tzinfo=UTC)
