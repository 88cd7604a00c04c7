"""Small image files made to measure, good and bad."""

from __future__ import annotations

import io
import struct
import zlib

from PIL import Image
from PIL.TiffImagePlugin import IFDRational

GPS = {1: "N", 2: (48.0, 51.0, 30.0), 3: "E", 4: (2.0, 17.0, 40.2)}


def image(
    kind: str = "JPEG",
    size: tuple[int, int] = (40, 30),
    orientation: int | None = None,
    gps: dict | None = None,
    **save,
) -> bytes:
    exif = Image.Exif()
    if orientation is not None:
        exif[274] = orientation
    if gps:
        exif[34853] = gps
    if len(exif):
        save["exif"] = exif.tobytes()
    stream = io.BytesIO()
    Image.new(save.pop("mode", "RGB"), size, save.pop("color", 3)).save(stream, kind, **save)
    return stream.getvalue()


def rational(numerator: int, denominator: int) -> IFDRational:
    return IFDRational(numerator, denominator)


def png_of_size(width: int, height: int) -> bytes:
    """A PNG whose header claims a size, with no pixels behind it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def png_with_text_bomb(megabytes: int = 100) -> bytes:
    """A PNG whose zTXt chunk inflates without bound."""
    png = png_of_size(10, 10)
    data = b"Comment\0\0" + zlib.compress(b"\0" * (megabytes << 20), 9)
    bomb = struct.pack(">I", len(data)) + b"zTXt" + data + struct.pack(">I", zlib.crc32(b"zTXt" + data))
    return png[:33] + bomb + png[33:]


def jpeg_with_exif(tiff: bytes) -> bytes:
    """A JPEG with `tiff` as the body of its EXIF segment."""
    body = b"Exif\0\0" + tiff
    plain = image()
    return plain[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + plain[2:]


def looping_exif() -> bytes:
    """EXIF whose GPS and Exif IFDs and whose next IFD are all IFD0 itself."""
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, 8) for tag in (0x8769, 0x8825, 0xA005))
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 3) + entries + struct.pack("<I", 8)


def looping_tiff(width: int = 40, height: int = 30) -> bytes:
    """A TIFF image whose sub-IFDs and next IFD are its first IFD."""
    values = [(256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, height), (279, 10)]
    values += [(0x014A, 8), (0x8769, 8), (0x8825, 8)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in values)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(values)) + entries + struct.pack("<I", 8)
