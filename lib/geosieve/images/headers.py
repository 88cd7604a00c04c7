"""Reading what an image file's header says, without decoding a pixel. Files are taken to be hostile."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import pillow_heif
from PIL import ExifTags, Image

from geosieve.images import xmp
from geosieve.images.exif import DATE_TIME_ORIGINAL, LAT, LON, Tags, capture_time, datum, is_no_date, position

MAX_PIXELS = 200_000_000
"""More are refused as `too_large`. The largest sensors of telephones have 199.8 million."""

EXTENSIONS = ("jpg", "jpeg", "jpe", "mpo", "png", "tif", "tiff", "webp", "gif", "bmp", "heic", "heif", "avif")
"""File name extensions that are read as images."""

Image.init()  # registers the formats that Pillow would else load on demand, and then not with `formats`
pillow_heif.register_heif_opener()
_FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP", "HEIF", "AVIF")  # an MPO is opened as a JPEG
_JPEG, _MARKER, _START_OF_SCAN = b"\xff\xd8\xff", 0xFF, 0xDA
_MAGIC = (_JPEG, b"\x89PNG\r\n\x1a\n", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"RIFF", b"GIF8", b"BM")
_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1", b"avif", b"avis")  # of HEIC and AVIF
_TRANSPOSED = (5, 6, 7, 8)  # orientations that swap width and height
_IMAGE_WIDTH, _IMAGE_LENGTH, _XMP = 256, 257, 700
# Pillow tells of damaged EXIF by Python warnings with these words.
_DAMAGE = ("corrupt", "truncated", "larger than file")

T = TypeVar("T")


@dataclass(frozen=True)
class ImageHeader:
    """What a header contains: size in pixels after orientation, orientation (1-8), position in degrees, UTC time.

    `warnings` are (code, message) pairs; `words_for_nothing` names the fields with a placeholder for a missing value.
    """

    width: int
    height: int
    orientation: int | None
    lat: float | None
    lon: float | None
    captured_at: datetime | None
    warnings: tuple[tuple[str, str], ...]
    words_for_nothing: tuple[str, ...]


@dataclass(frozen=True)
class Refusal:
    """Why a file is no usable image: empty_file, not_an_image, unreadable_header or too_large."""

    error_class: str
    message: str


@dataclass(frozen=True)
class _Tags:
    orientation: Any
    exif: Tags
    gps: Tags
    faults: tuple[str, ...]


def read_header(content: bytes, pixels: int = MAX_PIXELS) -> ImageHeader | Refusal:
    """What the header of an image file says. Never raises, whatever the bytes are.

    An image of more than `pixels` is refused. The start of a file is enough if `is_whole_header`.

    Warnings: `broken_exif` (a part of it cannot be read), `bad_gps` (no usable position), `no_position`,
    `other_datum` (the position was transformed to WGS-84), and those of `capture_time`. A position comes from EXIF, or
    from XMP where EXIF has none. A PNG's EXIF and XMP are found only before its pixels.
    """
    if not content:
        return Refusal("empty_file", "the file has 0 bytes")
    with warnings.catch_warnings(record=True) as noted, pixel_limit(pixels):
        warnings.simplefilter("always")
        image = open_image(content, pixels)
        if isinstance(image, Refusal):
            return image
        size, tags = _attempt(lambda: _size(image)), _read_tags(image)
    if isinstance(size, Exception) or min(size) <= 0:
        return Refusal("unreadable_header", f"its size cannot be read: {str(size)[:200]}")
    damage = [str(w.message) for w in noted if any(word in str(w.message).lower() for word in _DAMAGE)]
    return _header(size, tags, (*tags.faults, *damage))


def is_whole_header(start: bytes) -> bool:
    """Whether the start of a file holds all that `read_header` uses. False for all formats but JPEG.

    In a JPEG, metadata come before the first scan. Other formats may have them anywhere, TIFF and WebP at the end.
    """
    at = 2
    if not start.startswith(_JPEG):
        return False
    while at + 4 <= len(start) and start[at] == _MARKER:
        if start[at + 1] == _MARKER:  # a fill byte
            at += 1
        elif start[at + 1] == _START_OF_SCAN:
            return True
        else:
            at += 2 + int.from_bytes(start[at + 2 : at + 4], "big")
    return False


def open_image(content: bytes, pixels: int) -> Image.Image | Refusal:
    """An image whose header is read and whose pixels are not. Call it within `pixel_limit(pixels)`."""
    image = _attempt(lambda: Image.open(io.BytesIO(content), formats=_FORMATS))
    return _refusal(content, image, pixels) if isinstance(image, Exception) else image


def _header(size: tuple[int, int], tags: _Tags, faults: tuple[str, ...]) -> ImageHeader:
    doubts = [("broken_exif", faults[0][:200])] if faults else []
    valid = isinstance(tags.orientation, int) and 1 <= tags.orientation <= 8
    orientation = tags.orientation if valid else None
    width, height = reversed(size) if orientation in _TRANSPOSED else size
    lat, lon = None, None
    try:
        lat, lon = position(tags.gps) or (None, None)
        name = datum(tags.gps)
        if lat is None:
            doubts.append(("no_position", "the file holds no position, in EXIF or in XMP"))
        elif name is not None:
            doubts.append(("other_datum", f"the position is given in {name[:40]}; it was transformed to WGS-84"))
    except ValueError as fault:
        doubts.append(("bad_gps", str(fault)))
    captured_at, code, message = capture_time(tags.exif, tags.gps)
    if code is not None:
        doubts.append((code, message))
    nothing = ("captured_at",) if captured_at is None and is_no_date(tags.exif.get(DATE_TIME_ORIGINAL)) else ()
    return ImageHeader(width, height, orientation, lat, lon, captured_at, tuple(doubts), nothing)


def _read_tags(image: Image.Image) -> _Tags:
    # Not image.getexif(): for a PNG without EXIF before its pixels, that decodes all of them.
    main = _attempt(lambda: Image.Image.getexif(image))
    if isinstance(main, Exception):
        return _Tags(None, {}, xmp.gps_tags(_xmp(image)), (_name(main),))
    orientation = _attempt(lambda: main.get(ExifTags.Base.Orientation))
    # Only these two are followed, one step deep: an IFD that points to itself leads nowhere.
    exif = _attempt(lambda: dict(main.get_ifd(ExifTags.IFD.Exif)))
    gps = _attempt(lambda: dict(main.get_ifd(ExifTags.IFD.GPSInfo)))
    gps_tags = {} if isinstance(gps, Exception) else gps
    if LAT not in gps_tags and LON not in gps_tags:
        gps_tags = {**gps_tags, **xmp.gps_tags(_xmp(image))}
    return _Tags(
        orientation,  # checked by its reader
        {} if isinstance(exif, Exception) else exif,
        gps_tags,
        tuple(_name(found) for found in (orientation, exif, gps) if isinstance(found, Exception)),
    )


def _xmp(image: Image.Image) -> bytes:
    """The XMP packet as Pillow found it when it opened the file; empty if there is none."""
    tags = getattr(image, "tag_v2", {})  # of a TIFF
    packet = _attempt(lambda: tags.get(_XMP) or image.info.get("xmp") or image.info.get("XML:com.adobe.xmp"))
    return packet.encode() if isinstance(packet, str) else packet if isinstance(packet, bytes) else b""


def _size(image: Image.Image) -> tuple[int, int]:
    """Width and height as stored. Pillow swaps those of a TIFF by its orientation, and of no other format."""
    stored = getattr(image, "tag_v2", None)
    if stored is not None:
        return int(stored[_IMAGE_WIDTH]), int(stored[_IMAGE_LENGTH])
    return image.size


def _refusal(content: bytes, error: Exception, pixels: int) -> Refusal:
    if isinstance(error, Image.DecompressionBombError):
        return Refusal("too_large", f"the header says more than {pixels:,} pixels")
    if content.startswith(_MAGIC) or (content[4:8] == b"ftyp" and content[8:12] in _BRANDS):
        return Refusal("unreadable_header", f"truncated or damaged: {_name(error)}")
    return Refusal("not_an_image", "the content is of no image format that is read here")


def _name(error: Exception) -> str:
    # Pillow's messages of unidentified files hold the address of the buffer, which differs in every run.
    return f"{type(error).__name__}: {str(error).split(' <')[0][:150]}"


def _attempt(step: Callable[[], T]) -> T | Exception:
    """The result of `step`, or its exception as a value."""
    try:
        return step()
    except Exception as error:  # noqa: BLE001 - on damaged files Pillow raises nearly every kind there is
        return error


@contextmanager
def pixel_limit(pixels: int) -> Iterator[None]:
    """Pillow's own limit set to `pixels`, for this file only; it raises at twice what it is told."""
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = pixels // 2
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before
