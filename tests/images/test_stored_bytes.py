"""Bytes that rows of `images` point to: read where they lie, and compared with what was catalogued."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import random
import zlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fabricated_archives import tar_of

from geosieve.images import archives, content
from geosieve.images.content import read_contents
from geosieve.images.headers import Refusal
from geosieve.images.photo_rows import PhotoLimits
from geosieve.runtime.errors import InputError, RetryableError

LIMITS = PhotoLimits()
BYTES = random.Random(0).randbytes(5_000)


def row(path: Path | str, expected: bytes | None = BYTES, **place: Any) -> dict[str, Any]:
    known = None if expected is None else hashlib.sha256(expected).hexdigest()
    length = None if expected is None else len(expected)
    given = {"member": None, "offset": 0, "length": length, "compression": "none", "content_sha256": known}
    return {"uri": f"file:{path}" if isinstance(path, Path) else path, **given, **place}


def found(*rows: dict[str, Any]) -> list[bytes | str]:
    """For each row, its bytes or the error class."""
    read = list(read_contents(rows, LIMITS))
    assert [id(of) for of, _ in read] == [id(given) for given in rows]
    return [what.error_class if isinstance(what, Refusal) else what for _, what in read]


def test_ranges_of_a_file_are_read_with_one_opening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    deflated = packed.compress(BYTES) + packed.flush()
    path = tmp_path / "an archive"
    path.write_bytes(b"head" + BYTES + deflated)
    openings = []
    opened = archives.opened
    monkeypatch.setattr(content, "opened", lambda uri: openings.append(uri) or opened(uri))
    second = row(path, offset=4 + len(BYTES), length=len(deflated), compression="deflate")
    assert found(row(path, offset=4), second, row(path, offset=4, length=9, expected=None)) == [BYTES, BYTES, BYTES[:9]]
    assert len(openings) == 1


def test_a_file_of_a_list_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(BYTES)
    nothing = {"offset": None, "length": None, "compression": None}
    assert found(row(path, expected=None, **nothing), row(path, **nothing)) == [BYTES, BYTES]


def test_what_is_gone_or_changed_costs_one_image(tmp_path: Path) -> None:
    good, changed, cut, inflated = (tmp_path / name for name in ("good", "changed", "cut", "inflated"))
    good.write_bytes(BYTES)
    changed.write_bytes(BYTES[::-1])
    cut.write_bytes(BYTES[:100])
    inflated.write_bytes(BYTES)
    rows = [
        row(tmp_path / "gone"),
        row(good),
        row(changed),
        row(cut),
        row(cut, expected=None, length=9_999),
        row(inflated, compression="deflate"),
        row(good, offset=10_000),
        row(good),
    ]
    lost = "changed_content"
    assert found(*rows) == ["missing_file", BYTES, lost, lost, lost, lost, lost, BYTES]


def test_bytes_are_bounded(tmp_path: Path) -> None:
    path = tmp_path / "bomb"
    packed = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    chunks = [packed.compress(bytes(1 << 20)) for _ in range((LIMITS.bytes >> 20) + 1)]
    bomb = b"".join([*chunks, packed.flush()])
    path.write_bytes(bomb)
    deflated = row(path, expected=None, length=len(bomb), compression="deflate")
    with path.open("ab") as file:
        file.truncate(LIMITS.bytes + 10)  # a hole
    whole = row(path, expected=None, offset=None, length=None, compression=None)
    assert found(deflated, whole) == ["too_large", "too_large"]


@pytest.mark.parametrize(
    ("kind", "pack"), [("tar.gz", gzip.compress), ("tar.bz2", bz2.compress), ("tar.xz", lzma.compress)]
)
def test_a_compressed_tar_is_read_once_for_the_members_that_are_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, pack: Any
) -> None:
    members = {f"{k}.jpg": BYTES[k:] for k in range(8)}
    path = tmp_path / "packed"
    path.write_bytes(pack(tar_of(members)))
    place = {"offset": None, "compression": kind}
    wanted = [row(path, members[name], member=name, **place) for name in ("5.jpg", "2.jpg")]
    # Another image of the same member, another content than was catalogued, and a member that is not there.
    wanted += [{**wanted[0]}, row(path, b"", member="3.jpg", **place), row(path, member="9.jpg", **place)]
    openings = []
    opened = archives.opened
    monkeypatch.setattr(archives, "opened", lambda uri: openings.append(uri) or opened(uri))
    read = list(read_contents(wanted, LIMITS))
    names = [of["member"] for of, _ in read]
    assert names == ["2.jpg", "3.jpg", "5.jpg", "5.jpg", "9.jpg"]  # in the archive's order
    told = [what.error_class if isinstance(what, Refusal) else what for _, what in read]
    assert told == [members["2.jpg"], "changed_content", members["5.jpg"], members["5.jpg"], "changed_content"]
    assert len(openings) == 1


def test_of_a_compressed_tar_that_is_gone_or_damaged_every_image_is_told(tmp_path: Path) -> None:
    members = {f"{k}.jpg": random.Random(k).randbytes(5_000) for k in range(3)}
    path = tmp_path / "cut.tar.gz"
    path.write_bytes(gzip.compress(tar_of(members))[:9_000])
    place = {"offset": None, "compression": "tar.gz"}
    rows = [row(tmp_path / "gone.tar.gz", member=name, **place) for name in members]
    rows += [row(path, content, member=name, **place) for name, content in members.items()]
    told = [what.error_class if isinstance(what, Refusal) else what for _, what in read_contents(rows, LIMITS)]
    assert told == ["missing_file"] * 3 + [members["0.jpg"]] + ["changed_content"] * 2


class _Store:
    """A file whose store throttles after its first `good` bytes."""

    def __init__(self, packed: bytes, good: int, message: str) -> None:
        self.packed, self.good, self.message, self.at = packed, good, message, 0

    def __enter__(self) -> _Store:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def size(self) -> int:
        return len(self.packed)

    def read(self, length: int = -1) -> bytes:
        if self.at >= self.good:
            raise OSError(self.message)
        length = min(length if length >= 0 else self.good, self.good - self.at)
        self.at += length
        return self.packed[self.at - length : self.at]


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ("AWS Error SLOW_DOWN during GetObject operation: Please reduce your request rate.", RetryableError),
        ("AWS Error ACCESS_DENIED during GetObject operation: Access Denied", InputError),
    ],
)
def test_a_store_that_fails_ends_the_task_and_makes_no_rejects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, message: str, error: type[Exception]
) -> None:
    path = tmp_path / "a"
    path.write_bytes(BYTES)

    class Failing:
        def open_input_file(self, path: str) -> Any:
            raise OSError(message)

    with monkeypatch.context() as patch:
        patch.setattr("geosieve.runtime.store.locate", lambda uri: (Failing(), uri))
        with pytest.raises(error):
            found(row(path))
        with pytest.raises(error):
            found(row(path, member="a.jpg", offset=None, compression="tar.gz"))

    # In the middle of a compressed tar, where it looks like a damaged archive.
    packed = gzip.compress(tar_of({"a.jpg": BYTES, "b.jpg": BYTES[::-1]}))

    class FailingLater:
        def open_input_file(self, path: str) -> Any:
            return _Store(packed, 6_000, message)

    monkeypatch.setattr("geosieve.runtime.store.locate", lambda uri: (FailingLater(), uri))
    rows = [row(path, member=name, offset=None, compression="tar.gz", expected=None) for name in ("a.jpg", "b.jpg")]
    with pytest.raises(error):
        list(read_contents(rows, LIMITS))


def test_cells_of_parquet_are_read_by_their_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = [None if k % 10 == 7 else BYTES[k : 2 * k + 1] for k in range(100)]
    other = [bytes([k]) for k in range(100)]
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": cells, "other": other}), path, row_group_size=13)
    groups = []
    iter_batches = pq.ParquetFile.iter_batches
    monkeypatch.setattr(
        pq.ParquetFile,
        "iter_batches",
        lambda file, *given, row_groups, **options: (
            groups.extend(row_groups) or iter_batches(file, *given, row_groups=row_groups, **options)
        ),
    )

    def cell(number: int, expected: bytes | None, column: str = "image") -> dict[str, Any]:
        return row(path, expected, offset=number, member=column, compression="parquet")

    wanted = [cell(k, cells[k]) for k in (0, 3, 12, 13, 60, 61, 99)]
    assert found(*wanted) == [cells[k] for k in (0, 3, 12, 13, 60, 61, 99)]
    assert groups == [0, 1, 4, 7]
    assert found(cell(5, cells[5]), cell(5, other[5], "other"), cell(6, cells[6])) == [cells[5], other[5], cells[6]]
    # What is not what was catalogued: another row, a null, a row and a column that are not there.
    strange = [cell(5, cells[6]), cell(7, b""), cell(100, b"x"), cell(3, b"x", "no")]
    assert [found(one)[0] for one in strange] == ["changed_content"] * 4
    path.write_bytes(b"PAR1 and no more")
    assert found(cell(0, cells[0])) == ["changed_content"]
