"""Archives of photographs: every member is an image that can be read from where the row says, or a reject."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import random
import struct
import zipfile
import zlib
from pathlib import Path

import pyarrow as pa
import pytest
from fabricated_archives import tar_of, zip_of
from fabricated_images import GPS, image, png_of_size
from ingesting import Ingest
from pyspark.sql import Row

from geosieve.runtime.errors import EXIT_BAD_INPUT, EXIT_DONE


def zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return bytes(sink.getvalue())


def photo(number: int) -> bytes:
    """A photo with a position and colours of its own."""
    return image(gps=GPS, color=(number % 256, number // 256, 7), size=(40 + number % 5, 30))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "arch ive"
    made.mkdir()
    return made


def stored_bytes(row) -> bytes:
    """The bytes that a row of `images` points to."""
    content = Path(row.uri.removeprefix("file:").replace("///", "/")).read_bytes()
    return content[row.offset : row.offset + row.length]


NOT_HASHED = {"content_sha256": None, "perceptual_hash": None}
PACKED = {"tar.gz": gzip.compress, "tar.bz2": bz2.compress, "tar.xz": lzma.compress, "tar.zst": zstd}


def test_rows_point_to_the_bytes_of_their_images(ingest: Ingest, folder: Path) -> None:
    inside = {f"d/{number}.jpg": photo(number) for number in range(12)}
    (folder / "sub").mkdir()
    (folder / "plain.jpg").write_bytes(photo(99))
    (folder / "stored.zip").write_bytes(zip_of(inside))
    (folder / "sub" / "deflated.ZIP").write_bytes(zip_of(inside, zipfile.ZIP_DEFLATED))
    (folder / "plain.tar").write_bytes(tar_of(inside))
    (folder / "really_a_tar.zip").write_bytes(tar_of(inside))
    for kind, pack in PACKED.items():
        (folder / f"packed.{kind}").write_bytes(pack(tar_of(inside)))
    code, report = ingest(folder, format="photos")
    assert code == EXIT_DONE, report["error"]
    images = ingest.images()
    archives = [
        "stored.zip",
        "sub/deflated.ZIP",
        "plain.tar",
        "really_a_tar.zip",
        *(f"packed.{kind}" for kind in PACKED),
    ]
    expected = {f"{archive}/{name}": content for archive in archives for name, content in inside.items()}
    assert set(images) == {"plain.jpg", *expected} and report["rows_in"] == len(expected) + 1
    assert (report["details"]["inputs"]["archives"], report["rejected"]) == (len(archives), {})
    for name, content in expected.items():
        row = images[name]
        assert row.content_sha256 == hashlib.sha256(content).hexdigest() and row.lat == pytest.approx(48.858333)
        assert row.member == name[name.index("d/") :] and row.uri.endswith(name.removesuffix(f"/{row.member}"))
        if row.compression == "none":
            assert stored_bytes(row) == content
        elif row.compression == "deflate":
            assert zlib.decompress(stored_bytes(row), -zlib.MAX_WBITS) == content
        else:
            assert row.compression in PACKED and row.uri.endswith(row.compression) and row.offset is None
    # Headers alone say the same, but for what members of a compressed tar cost: they are read whole.
    code, report = ingest(folder, format="photos", fingerprint=False, run_id="headers")
    assert code == EXIT_DONE, report["error"]
    for name, row in ingest.images("headers").items():
        assert row == Row(**{**images[name].asDict(), **NOT_HASHED, "run_id": "headers"})
    plain = images["plain.jpg"]
    assert (plain.member, plain.offset, plain.length, plain.compression) == (None, 0, len(photo(99)), "none")


def test_hostile_members_and_archives_are_rejects_of_their_class(ingest: Ingest, folder: Path) -> None:
    good, png = photo(1), png_of_size(65_000, 65_000)
    damaged = bytearray(zip_of({"bad.jpg": good, "fine.jpg": photo(2)}))
    damaged[200] ^= 255
    encrypted = bytearray(zip_of({"secret.jpg": good}))
    encrypted[encrypted.index(b"PK\x01\x02") + 8] |= 1
    noise = random.Random(0).randbytes(60_000)
    cut = tar_of({"ok.jpg": photo(6), "cut.jpg": good})
    files = {
        "names.zip": zip_of({"../up.jpg": good, "/abs.jpg": good, "C:\\x.jpg": good, "ok.jpg": photo(3)}),
        "links.tar": tar_of({"ok.jpg": photo(4)}, links=("passwd.jpg",)),
        "bomb.zip": zip_of({"zeros.jpg": bytes(30 << 20)}, zipfile.ZIP_DEFLATED),
        "bomb.tar.gz": gzip.compress(tar_of({"a.txt": bytes(30 << 20), "b.jpg": good})),
        "nested.zip": zip_of({"inner.zip": zip_of({"a.jpg": good}), "ok.jpg": photo(5)}),
        "kinds.zip": zip_of({"a.json": b"{}", "a.exe": b"MZ", "empty.jpg": b"", "huge.png": png, ".x.jpg": good}),
        "damaged.zip": bytes(damaged),
        "encrypted.zip": bytes(encrypted),
        "cut.tar": cut[: cut.index(b"cut.jpg") + 512 + 100],
        "cut.tar.gz": gzip.compress(tar_of({"ok.jpg": photo(7), "noise.jpg": good + noise}))[:40_000],
        "no.zip": b"<html>404</html>",
        "empty.tar": b"",
    }  # fmt: skip
    for name, content in files.items():
        (folder / name).write_bytes(content)
    code, report = ingest(folder, format="photos")
    assert code == EXIT_DONE, report["error"]
    images, rejects = ingest.images(), {(row.id, row.error_class) for row in ingest.rejects()}
    ok = {f"{name}/ok.jpg" for name in ("names.zip", "links.tar", "nested.zip", "cut.tar", "cut.tar.gz")}
    assert set(images) == ok | {"damaged.zip/fine.jpg"}
    expected = {
        ("names.zip/../up.jpg", "unsafe_name"),
        ("names.zip//abs.jpg", "unsafe_name"),
        ("names.zip/C:\\x.jpg", "unsafe_name"),
        ("links.tar/passwd.jpg", "link_or_device"),
        ("bomb.zip/zeros.jpg", "ratio_bomb"),
        ("bomb.tar.gz", "ratio_bomb"),
        ("nested.zip/inner.zip", "nested_archive"),
        ("kinds.zip/a.exe", "not_an_image"),
        ("kinds.zip/empty.jpg", "empty_file"),
        ("kinds.zip/huge.png", "too_large"),
        ("damaged.zip/bad.jpg", "broken_member"),
        ("encrypted.zip/secret.jpg", "encrypted"),
        ("cut.tar/cut.jpg", "truncated_archive"),
        ("cut.tar.gz", "truncated_archive"),
        ("no.zip", "broken_archive"),
        ("empty.tar", "empty_file"),
    }
    assert rejects == expected
    assert report["rows_in"] == len(images) + len(expected) and report["details"]["inputs"]["sidecars"] == 1


def test_one_archive_is_read_by_many_tasks_and_the_rows_are_the_same(ingest: Ingest, folder: Path) -> None:
    inside = {f"{number:04d}.jpg": photo(number) for number in range(300)}
    (folder / "many.tar").write_bytes(tar_of(inside))
    assert ingest(folder, format="photos")[0] == EXIT_DONE
    found = {row.member: row.content_sha256 for row in ingest.images().values()}
    assert found == {name: hashlib.sha256(content).hexdigest() for name, content in inside.items()}


def test_archives_inside_archives_are_entered_one_step_where_asked_for(ingest: Ingest, folder: Path) -> None:
    inside = {f"d/{number}.jpg": photo(number) for number in range(3)}
    deeper = zip_of({"deep.zip": zip_of(inside), "x.jpg": photo(9)})
    inner = {"a.zip": zip_of(inside, zipfile.ZIP_DEFLATED), "b.tar": tar_of(inside), "two.zip": deeper}
    refused = {"c.tar.gz": gzip.compress(tar_of(inside)), "no.zip": b"hello"}
    (folder / "stored.zip").write_bytes(zip_of({**inner, **refused}))
    (folder / "plain.tar").write_bytes(tar_of({**inner, **refused}))
    (folder / "packed.zip").write_bytes(zip_of({"a.zip": zip_of(inside)}, zipfile.ZIP_DEFLATED))
    (folder / "packed.tar.gz").write_bytes(gzip.compress(tar_of({"a.zip": zip_of(inside)})))
    code, report = ingest(folder, format="photos", limits={"nested": 1})
    assert code == EXIT_DONE, report["error"]
    expected = {f"{name}/{path}": content for name in ("a.zip", "b.tar") for path, content in inside.items()}
    expected["two.zip/x.jpg"] = photo(9)
    images = ingest.images()
    assert set(images) == {f"{outer}/{name}" for outer in ("stored.zip", "plain.tar") for name in expected}
    for name, row in images.items():
        content = expected[row.member]
        stored = stored_bytes(row)
        assert (stored if row.compression == "none" else zlib.decompress(stored, -zlib.MAX_WBITS)) == content
        assert name == f"{row.uri.rpartition('/')[2]}/{row.member}"
    nested = {f"{outer}/{name}" for outer in ("stored.zip", "plain.tar") for name in ("c.tar.gz", "two.zip/deep.zip")}
    nested |= {"packed.zip/a.zip", "packed.tar.gz/a.zip"}
    broken = {f"{outer}/no.zip" for outer in ("stored.zip", "plain.tar")}
    rejects = {(row.id, row.error_class) for row in ingest.rejects()}
    assert rejects == {(name, "nested_archive") for name in nested} | {(name, "broken_archive") for name in broken}


def test_limits_are_configuration(ingest: Ingest, folder: Path) -> None:
    (folder / "many.zip").write_bytes(zip_of({f"{number}.jpg": photo(number) for number in range(9)}))
    code, report = ingest(folder, format="photos", limits={"members": 5})
    assert code == EXIT_DONE and (report["rows_out"], report["rejected"]) == (5, {"too_many_members": 1})


def test_archives_without_an_image_are_bad_input(ingest: Ingest, folder: Path) -> None:
    (folder / "empty.zip").write_bytes(zip_of({}))
    code, report = ingest(folder, format="photos")
    assert code == EXIT_BAD_INPUT and "empty input" in report["error"]


def test_a_directory_that_claims_bytes_beyond_the_file_gives_rejects(ingest: Ingest, folder: Path) -> None:
    content = bytearray(zip_of({"a.jpg": photo(1), "b.jpg": photo(2)}))
    entry = content.index(b"PK\x01\x02")
    struct.pack_into("<II", content, entry + 20, 1 << 20, 1 << 20)
    (folder / "lies.zip").write_bytes(content)
    assert ingest(folder, format="photos")[0] == EXIT_DONE
    assert set(ingest.images()) == {"lies.zip/b.jpg"}
    assert [row.id for row in ingest.rejects()] == ["lies.zip/a.jpg"]
