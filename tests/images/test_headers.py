"""Image headers: sizes, orientations, positions, and files that mean harm."""

from __future__ import annotations

import csv
import time
import warnings
from pathlib import Path

import pytest
from fabricated_images import (
    GPS,
    image,
    jpeg_with_exif,
    looping_exif,
    looping_tiff,
    png_of_size,
    png_with_text_bomb,
    rational,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from geosieve.images.headers import ImageHeader, Refusal, read_header

PHOTOS = Path(__file__).parents[3] / "shared" / "data" / "photos"


CASES = PHOTOS.parent / "cases"


def header(content: bytes) -> ImageHeader:
    found = read_header(content)
    assert isinstance(found, ImageHeader), found
    return found


def codes(found: ImageHeader) -> list[str]:
    return [code for code, _ in found.warnings]


@pytest.mark.skipif(not PHOTOS.exists(), reason="shared/data/photos is not there")
def test_real_photos_have_the_positions_and_sizes_of_their_index() -> None:
    with (PHOTOS / "index.csv").open() as index:
        rows = list(csv.DictReader(index))
    assert len(rows) == 57
    for row in rows:
        found = header((PHOTOS / row["file"]).read_bytes())
        assert (found.lat, found.lon) == pytest.approx((float(row["lat"]), float(row["lon"])), abs=1e-5), row["file"]
        assert (found.width, found.height) == (int(row["width"]), int(row["height"])), row["file"]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations_5_to_8_lie_on_their_side(kind: str, orientation: int) -> None:
    found = header(image(kind, (40, 30), orientation=orientation))
    assert (found.width, found.height) == ((30, 40) if orientation >= 5 else (40, 30))
    assert found.orientation == orientation


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_position_is_read_from_every_format_that_carries_exif(kind: str) -> None:
    found = header(image(kind, gps=GPS))
    assert (found.lat, found.lon) == pytest.approx((48.858333, 2.2945), abs=1e-6)
    assert codes(found) == []


@pytest.mark.parametrize(
    ("kind", "mode"), [("GIF", "P"), ("BMP", "RGB"), ("JPEG", "CMYK"), ("PNG", "I;16"), ("PNG", "RGBA"), ("TIFF", "F")]
)
def test_unusual_pixels_do_not_matter_to_a_header(kind: str, mode: str) -> None:
    found = header(image(kind, mode=mode, color=0))
    assert (found.width, found.height, found.lat) == (40, 30, None)
    assert codes(found) == ["no_position"]


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_none(orientation: int) -> None:
    found = header(image(orientation=orientation))
    assert (found.orientation, found.width, found.height) == (None, 40, 30)


def test_zero_denominators_give_no_position() -> None:
    zero = (rational(48, 0), rational(0, 0), rational(0, 1))
    found = header(image(gps={**GPS, 2: zero}))
    assert (found.lat, found.lon) == (None, None)
    assert codes(found) == ["bad_gps"]


def test_null_island_is_no_position() -> None:
    found = header(image(gps={**GPS, 2: (0.0, 0.0, 0.0), 4: (0.0, 0.0, 0.0)}))
    assert (found.lat, codes(found)) == (None, ["bad_gps"])


def test_ifds_that_point_to_themselves_end() -> None:
    start = time.monotonic()
    for content in (jpeg_with_exif(looping_exif()), looping_tiff()):
        found = header(content)
        assert (found.width, found.height, found.lat) == (40, 30, None)
    assert time.monotonic() - start < 2


def test_damaged_exif_keeps_the_image_without_position() -> None:
    whole = looping_exif()
    for broken in (b"", b"II*\0", whole[:20], b"XX" + whole[2:], whole[:4] + b"\xff\xff\xff\xff" + whole[8:]):
        found = header(jpeg_with_exif(broken))
        assert (found.width, found.height, found.lat) == (40, 30, None)
    assert "broken_exif" in codes(header(jpeg_with_exif(whole[:20])))


@pytest.mark.parametrize(
    ("content", "error_class"),
    [
        (b"", "empty_file"),
        (b"plain text, no picture", "not_an_image"),
        (b"%PDF-1.7", "not_an_image"),
        (b"\xff\xd8\xff", "unreadable_header"),
        (image()[:100], "unreadable_header"),
        (image("PNG")[:20], "unreadable_header"),
        (image("TIFF")[:9], "unreadable_header"),
        (png_of_size(0, 10), "unreadable_header"),
        (png_with_text_bomb(), "unreadable_header"),
        (png_of_size(65_000, 65_000), "too_large"),
        (png_of_size(20_000, 10_001), "too_large"),
    ],
)
def test_unusable_files_are_refused_by_class(content: bytes, error_class: str) -> None:
    found = read_header(content)
    assert isinstance(found, Refusal)
    assert found.error_class == error_class
    assert len(found.message) <= 500


def test_the_largest_telephone_photo_is_accepted() -> None:
    found = header(png_of_size(16_320, 12_240))
    assert found.width * found.height == 199_756_800


def test_pillows_limit_and_filters_are_left_as_they_were() -> None:
    limit, filters = Image.MAX_IMAGE_PIXELS, list(warnings.filters)
    for content in (image(), png_of_size(65_000, 65_000), b"x"):
        read_header(content)
    assert (Image.MAX_IMAGE_PIXELS, list(warnings.filters)) == (limit, filters)


def test_a_png_is_never_decoded_for_its_exif(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("pixels were decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", refuse)
    assert header(image("PNG")).width == 40


@settings(max_examples=150)
@given(
    st.sampled_from(["JPEG", "PNG", "TIFF", "WEBP"]),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=8),
    st.integers(0, 2000),
)
def test_no_damage_raises(kind: str, changes: list[tuple[int, int]], kept: int) -> None:
    content = bytearray(image(kind, gps=GPS, orientation=6))
    for place, value in changes:
        content[place % len(content)] = value
    found = read_header(bytes(content[:kept]))
    if isinstance(found, ImageHeader) and found.lat is not None:
        assert -90 <= found.lat <= 90


@pytest.mark.skipif(not CASES.exists(), reason="shared/data/cases is not there")
def test_positions_and_times_of_the_cases() -> None:
    tokyo = header((CASES / "04_tokyo.jpg").read_bytes())
    assert (tokyo.lat, tokyo.lon) == pytest.approx((35.68107, 139.76710), abs=1e-5)
    assert codes(tokyo) == ["other_datum"]
    packet = header((CASES / "17_xmp.jpg").read_bytes())
    assert (packet.lat, packet.lon) == pytest.approx((-33.4491, -70.661), abs=1e-6)
    assert codes(packet) == []
    late = header((CASES / "12_rollover.jpg").read_bytes())
    assert late.captured_at is not None and f"{late.captured_at:%Y-%m-%d}" == "2021-07-01"
    assert codes(late) == ["gps_week_rollover"]


def packet(lat: str, lon: str, more: str = "") -> bytes:
    return (
        "<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#'>"
        f"<rdf:Description xmlns:exif='http://ns.adobe.com/exif/1.0/' exif:GPSLatitude=\"{lat}\" "
        f"exif:GPSLongitude='{lon}'{more}/></rdf:RDF></x:xmpmeta>"
    ).encode()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_xmp_serves_where_exif_has_no_position(kind: str) -> None:
    save = {"xmp": packet("48,51,30N", "2,17.67E")}
    if kind == "TIFF":
        save = {"tiffinfo": {700: save["xmp"]}}
    if kind == "PNG":
        save = {"pnginfo": PngInfo()}
        save["pnginfo"].add_itxt("XML:com.adobe.xmp", packet("48,51,30N", "2,17.67E").decode())
    found = header(image(kind, **save))
    assert (found.lat, found.lon) == pytest.approx((48.858333, 2.2945), abs=1e-6)  # 51' 30" and 17.67'
    if kind == "TIFF":  # Pillow writes but one of the two
        return
    found = header(image(kind, gps={**GPS, 1: "S"}, **save))
    assert found.lat == pytest.approx(-48.858333, abs=1e-6)  # EXIF's own comes first


@pytest.mark.parametrize(
    ("lat", "lon", "more"),
    [
        ("48/1,51/1,30/1N", "2/1,17/1,4020/100E", ""),
        ("48/1 51/1 30/1", "2/1 17/1 4020/100", " exif:GPSLatitudeRef='N' exif:GPSLongitudeRef='East'"),
        ("48, 51.5 N", "2, 17.67 E", ""),
        ("48858333/1000000n", "22945/10000e", ""),
    ],
)
def test_xmp_may_hold_rationals_blanks_and_hemispheres_apart(lat: str, lon: str, more: str) -> None:
    found = header(image(xmp=packet(lat, lon, more)))
    assert (found.lat, found.lon) == pytest.approx((48.858333, 2.2945), abs=1e-6)
    south = header(image(xmp=packet(lat, lon, more).replace(b"N'", b"S'").replace(b'N"', b'S"').replace(b'n"', b's"')))
    assert south.lat == pytest.approx(-48.858333, abs=1e-6)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (packet("95,0,0N", "2,0E"), "bad_gps"),
        (packet("48/0,51/1,30/1N", "2,0E"), "bad_gps"),
        (packet("48/1/1,51/1,30/1N", "2,0E"), "bad_gps"),
        (packet("48.85", "2.29"), "bad_gps"),  # which hemisphere?
        (packet("north", "2,0E"), "bad_gps"),
        (packet("48,51,30N", "2,17E", " exif:GPSStatus='V'"), "bad_gps"),
        (packet("48,51,30N", "2,17E").replace(b"/>", b"><exif:GPSLatitude>1,2N</exif:GPSLatitude></x>"), "bad_gps"),
        (packet("&lat;", "&lon;"), "bad_gps"),  # an entity is never expanded
        (b"<!DOCTYPE x [<!ENTITY a 'aaaa'>]>" + b"<a:GPSLatitude " * 4000, "no_position"),
        (b"\0\xff" * 1000, "no_position"),
    ],
)
def test_xmp_that_is_faulty_or_hostile_gives_no_position(content: bytes, code: str) -> None:
    start = time.monotonic()
    found = header(image(xmp=content))
    assert (found.lat, codes(found)) == (None, [code])
    assert time.monotonic() - start < 1


def test_a_word_for_nothing_instead_of_a_date_is_counted() -> None:
    exif = Image.Exif()
    exif.get_ifd(34665)[36867] = "1899:12:30 00:00:00"
    found = header(image(exif=exif.tobytes()))
    assert (found.captured_at, found.words_for_nothing) == (None, ("captured_at",))
