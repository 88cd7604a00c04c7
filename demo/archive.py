"""Make archives of generated photos: a zip, a tar and a folder, with files that would do harm."""

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
    """Write, unless it exists, the folder of the demo's archive, and return its path.

    The photos are blurred noise, with positions of the demo's gallery in their EXIF.
    """
    write_archive(FOLDER, _photos(3 * PHOTOS), PHOTOS)
    return FOLDER


def write_archive(folder: Path, photos: Iterator[bytes], count: int) -> None:
    """Write, unless it exists, a folder with `count` photos in a zip, as many in a tar, and as many as files.

    Beside them are a member that leads out of its zip, a link, a page that is called a photo, a photo that is cut off,
    and one of 4 gigapixels.
    """
    if folder.exists():
        return
    part = folder.with_suffix(".part")
    (part / "folder").mkdir(parents=True, exist_ok=True)
    cut = b""
    with zipfile.ZipFile(part / "a.zip", "w") as packed:
        for number in range(count):
            cut = next(photos)
            packed.writestr(f"{number:04d}.jpg", cut)
        packed.writestr("../escape.jpg", b"a member that leads out of the archive")
        packed.writestr("page.jpg", b"<html>404</html>")
    with tarfile.open(part / "b.tar", "w") as tar:
        for number in range(count):
            _add(tar, f"{number:04d}.jpg", next(photos))
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    for number in range(count):
        (part / "folder" / f"{number:04d}.jpg").write_bytes(next(photos))
    (part / "folder" / "cut.jpg").write_bytes(cut[: len(cut) // 3])
    (part / "folder" / "huge.bmp").write_bytes(_bmp_header(65_000, 65_000))
    part.rename(folder)


def as_photo(scene: Image.Image, lat: float, lon: float) -> bytes:
    """A JPEG file with a position in its EXIF, degrees."""
    exif = Image.Exif()
    exif[34853] = _gps(lat, lon)
    stream = io.BytesIO()
    scene.save(stream, "JPEG", quality=85, exif=exif.tobytes())
    return stream.getvalue()


def _photos(count: int) -> Iterator[bytes]:
    """JPEG files of 320 × 240 pixels with the gallery's first positions in their EXIF."""
    noise = np.random.default_rng(0)
    with prepare.positions().open(newline="") as gallery:
        for _, row in zip(range(count), csv.DictReader(gallery), strict=False):
            colours = noise.integers(0, 256, (6, 8, 3), dtype=np.uint8)
            scene = Image.fromarray(colours).resize((320, 240), Image.Resampling.BICUBIC)
            yield as_photo(scene, float(row["lat"]), float(row["lon"]))


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
