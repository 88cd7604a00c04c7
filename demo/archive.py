"""Make the demo's archive of generated photos: a zip, a tar and a folder, with files that would do harm."""

from __future__ import annotations

import csv
import io
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from demo import prepare

FOLDER = prepare.FOLDER / "archive"
PHOTOS = 300  # as many in the zip, in the tar and in the folder


def archive() -> Path:
    """Write, unless it exists, the folder of the archive, and return its path.

    The photos are blurred noise, with positions of the demo's gallery in their EXIF. Beside them are a member that
    leads out of its zip, a link, a page that is called a photo, a photo that is cut off, and one of 4 gigapixels.
    """
    if FOLDER.exists():
        return FOLDER
    part = FOLDER.with_suffix(".part")
    (part / "folder").mkdir(parents=True, exist_ok=True)
    photos = _photos(3 * PHOTOS)
    with zipfile.ZipFile(part / "a.zip", "w") as packed:
        for number in range(PHOTOS):
            packed.writestr(f"{number:04d}.jpg", next(photos))
        packed.writestr("../escape.jpg", b"a member that leads out of the archive")
        packed.writestr("page.jpg", b"<html>404</html>")
    with tarfile.open(part / "b.tar", "w") as tar:
        for number in range(PHOTOS):
            _add(tar, f"{number:04d}.jpg", next(photos))
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    for number in range(PHOTOS):
        (part / "folder" / f"{number:04d}.jpg").write_bytes(next(photos))
    (part / "folder" / "cut.jpg").write_bytes(next(_photos(1))[:2_000])
    (part / "folder" / "huge.bmp").write_bytes(_bmp_header(65_000, 65_000))
    part.rename(FOLDER)
    return FOLDER


def _photos(count: int) -> Iterator[bytes]:
    """JPEG files of 320 × 240 pixels with the gallery's first positions in their EXIF."""
    noise = np.random.default_rng(0)
    with prepare.positions().open(newline="") as gallery:
        for _, row in zip(range(count), csv.DictReader(gallery), strict=False):
            colours = noise.integers(0, 256, (6, 8, 3), dtype=np.uint8)
            exif = Image.Exif()
            exif[34853] = _gps(float(row["lat"]), float(row["lon"]))
            stream = io.BytesIO()
            scene = Image.fromarray(colours).resize((320, 240), Image.Resampling.BICUBIC)
            scene.save(stream, "JPEG", quality=85, exif=exif.tobytes())
            yield stream.getvalue()


def _gps(lat: float, lon: float) -> dict[int, object]:
    """The GPS tags of EXIF: hemisphere and degrees."""
    return {
        1: "N" if lat >= 0 else "S",
        2: (abs(lat), 0.0, 0.0),
        3: "E" if lon >= 0 else "W",
        4: (abs(lon), 0.0, 0.0),
    }


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def _bmp_header(width: int, height: int) -> bytes:
    return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
