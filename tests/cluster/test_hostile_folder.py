"""A folder of 200 good and hostile files, some of which crash the decoder or hang it: exactly the expected rejects."""

from __future__ import annotations

import gzip
import os
import random
import zipfile
from pathlib import Path

import pillow_heif
import pyarrow.parquet as pq
from fabricated_archives import tar_of, zip_of
from fabricated_images import image, png_of_size, png_with_text_bomb
from job_client import JobServer

pillow_heif.register_heif_opener()  # writes HEIC, too
POISON = Path(__file__).parent / "poison"
KINDS = {"jpg": "JPEG", "png": "PNG", "gif": "GIF", "bmp": "BMP", "tif": "TIFF", "webp": "WEBP", "heic": "HEIF"}

# Names of files by what becomes of them: the class of the reject, or None for an image.
Expected = dict[str, str | None]


def good(number: int, kind: str = "jpg") -> bytes:
    return image(KINDS[kind], size=(40 + number % 7, 30), color=(number % 256, 90, 7))


def fill(folder: Path) -> Expected:
    """200 files. Returns what is expected of each file and of each member of an archive."""
    random.seed(0)
    expected: Expected = {}

    def put(name: str, content: bytes, becomes: str | None) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        expected[name] = becomes

    def put_archive(name: str, content: bytes, becomes: Expected) -> None:
        (folder / name).write_bytes(content)
        expected.update({f"{name}/{member}" if member else name: outcome for member, outcome in becomes.items()})

    for number in range(130):
        kind = list(KINDS)[number % len(KINDS)]
        put(f"good/{number % 3}/{number}.{kind}", good(number, kind), None)
    for number in range(10):
        put(f"crash{number}.jpg", good(number) + b"CRASH", "decoder_crashed" if number < 3 else None)
        if number >= 3:
            (folder / f"crash{number}.jpg").write_bytes(good(number))
    for number in range(2):
        put(f"hang{number}.jpg", good(number) + b"HANG", "decoder_timeout")
    for number in range(10):
        jpeg, png = good(number), good(number, "png")
        put(f"cut/{number}.jpg", jpeg[: len(jpeg) - 20 - number], "truncated")
        put(f"empty/{number}.png", b"", "empty_file")
        put(f"text/{number}.jpg", f"page {number}".encode(), "not_an_image")
        put(f"notes/{number}.doc", b"words", "not_an_image")
        put(f"damaged/{number}.png", png[:44] + bytes(8) + png[52:], "broken_image")
    put("huge.png", png_of_size(65_000, 65_000), "too_large")
    put("bomb.png", png_with_text_bomb(), "unreadable_header")
    jpegs = {f"{number}.jpg": good(number) for number in range(4)}
    put_archive(
        "poisoned.zip",
        zip_of({**jpegs, "crash.jpg": good(9) + b"CRASH", "../up.jpg": good(1)}),
        {**dict.fromkeys(jpegs), "crash.jpg": "decoder_crashed", "../up.jpg": "unsafe_name"},
    )
    put_archive("links.tar", tar_of(jpegs, links=("l.jpg",)), {**dict.fromkeys(jpegs), "l.jpg": "link_or_device"})
    cut = gzip.compress(tar_of({**jpegs, "noise.jpg": random.randbytes(90_000)}))[:40_000]
    put_archive("cut.tar.gz", cut, {**dict.fromkeys(jpegs), "": "truncated_archive"})
    put_archive("bomb.zip", zip_of({"zeros.png": bytes(30 << 20)}, zipfile.ZIP_DEFLATED), {"zeros.png": "ratio_bomb"})
    put_archive("hang.tar.gz", gzip.compress(tar_of({**jpegs, "hang.jpg": good(3) + b"HANG"})),
                {**dict.fromkeys(jpegs), "hang.jpg": "decoder_timeout"})  # fmt: skip
    put_archive("page.tar", b"<html>404</html>", {"": "broken_archive"})
    assert sum(len(names) for _, _, names in os.walk(folder)) == 200
    return expected


def test_each_hostile_file_costs_itself_and_nothing_else(tmp_path: Path) -> None:
    folder, tables = tmp_path / "mixed", tmp_path / "tables"
    expected = fill(folder)
    # A second attempt of a task is what brings a crash down to its image.
    server = JobServer(tmp_path / "server", "local[2,2]", environment={"PYTHONPATH": str(POISON)})
    try:
        source = {"name": "mixed", "uri": str(folder), "format": "photos", "limits": {"seconds": 3}}
        outcome = server.run("ingest_images", {"source": source, "output": str(tables)}, "r")
    finally:
        server.close()
    assert outcome.exit_code == 0, outcome.report["error"]
    assert outcome.report["rows_in"] == len(expected)
    images, rejects = (pq.read_table(tables / name, partitioning=None).to_pylist() for name in ("images", "rejects"))
    found: Expected = {row["image_id"]: None for row in images}
    found.update({row["id"]: row["error_class"] for row in rejects})
    assert found == expected
