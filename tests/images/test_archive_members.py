"""Members of zip and tar files: the same as Python's `zipfile` and `tarfile` find, and hostile archives by hand."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fabricated_archives import tar_of, zip_of
from hypothesis import given, settings
from hypothesis import strategies as st

from geosieve.images.archives import read_member
from geosieve.images.members import ArchiveLimits, Member, RefusedMember
from geosieve.images.tar_members import tar_members
from geosieve.images.zip_members import data_offset, zip_members

LIMITS = ArchiveLimits()
List = Callable[[Any, int, ArchiveLimits], Iterator[Member | RefusedMember]]


class Reads:
    """A file in memory that counts how it is read."""

    def __init__(self, content: bytes) -> None:
        self.content, self.requests, self.bytes = content, 0, 0

    def __call__(self, offset: int, length: int) -> bytes:
        assert offset >= 0 and 0 <= length <= 8 << 20
        found = self.content[offset : offset + length]
        self.requests, self.bytes = self.requests + 1, self.bytes + len(found)
        return found


def found_in(content: bytes, members: List, limits: ArchiveLimits = LIMITS) -> list[Member | RefusedMember]:
    return list(members(Reads(content), len(content), limits))


def good(content: bytes, members: List) -> dict[str, bytes]:
    """Stored bytes by name; every member must be good."""
    found = found_in(content, members)
    assert all(isinstance(one, Member) for one in found), found
    stored = {}
    for one in found:
        assert isinstance(one, Member)
        start = one.data if one.data is not None else data_offset(Reads(content), one)
        assert start is not None
        stored[one.name] = content[start : start + one.length]
    assert len(stored) == len(found)
    return stored


def refused(content: bytes, members: List, limits: ArchiveLimits = LIMITS) -> list[tuple[str | None, str]]:
    found = found_in(content, members, limits)
    return [(one.name, one.error_class) for one in found if isinstance(one, RefusedMember)]


def tar_with(**values: Any) -> bytes:
    """A tar of one member with these fields of its header."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        entry = tarfile.TarInfo("x.jpg")
        for key, value in values.items():
            setattr(entry, key, value)
        archive.addfile(entry, io.BytesIO(bytes(entry.size)))
    return stream.getvalue()


FILES = {
    "a.jpg": b"one",
    "folder/b c.jpg": b"two" * 700,
    "ü/é.jpg": b"",
    "日本.png": b"x" * 513,
    "d" * 180 + "/e.jpg": b"long",
}


def test_stored_members_of_a_zip() -> None:
    assert good(zip_of(FILES), zip_members) == FILES
    assert good(zip_of({}), zip_members) == {}


def test_deflated_members_have_the_sizes_and_checksums_that_zipfile_tells() -> None:
    content = zip_of(FILES, zipfile.ZIP_DEFLATED)
    found = {one.name: one for one in found_in(content, zip_members) if isinstance(one, Member)}
    for info in zipfile.ZipFile(io.BytesIO(content)).infolist():
        one = found[info.filename]
        assert (one.offset, one.length, one.size) == (info.header_offset, info.compress_size, info.file_size)
        assert one.crc == info.CRC and one.compression == "deflate"


def test_lengths_behind_the_data_as_streams_write_them() -> None:
    class Unseekable(io.RawIOBase):
        def __init__(self) -> None:
            self.content = b""

        def writable(self) -> bool:
            return True

        def write(self, more: Any) -> int:
            self.content += bytes(more)
            return len(more)

    stream = Unseekable()
    with zipfile.ZipFile(stream, "w") as archive:  # type: ignore[arg-type]
        for name, content in FILES.items():
            archive.writestr(name, content)
    assert good(stream.content, zip_members) == FILES


def test_zip64_comments_and_bytes_before_the_zip() -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in FILES.items():
            with archive.open(name, "w", force_zip64=True) as member:
                member.write(content)
        archive.comment = b"PK\x05\x06 is not the end" * 9
    assert good(stream.getvalue(), zip_members) == FILES
    assert good(b"#!/bin/sh\n" * 50 + stream.getvalue(), zip_members) == FILES


def test_zip64_of_more_members_than_16_bits_count_takes_few_requests() -> None:
    files = {f"{k}.jpg": b"" for k in range(70_000)}
    reads = Reads(zip_of(files))
    assert sum(isinstance(one, Member) for one in zip_members(reads, len(reads.content), LIMITS)) == 70_000
    assert reads.requests <= 5


def test_a_zip_that_is_cut_off_gives_its_whole_members() -> None:
    content = zip_of({"a.jpg": b"a" * 1000, "b.jpg": b"b" * 1000, "c.jpg": b"c" * 1000})
    cut = content[: content.index(b"c" * 1000) + 500]
    names = [one.name for one in found_in(cut, zip_members) if isinstance(one, Member)]
    assert names == ["a.jpg", "b.jpg"] and refused(cut, zip_members) == [(None, "truncated_archive")]


@pytest.mark.parametrize("members", [zip_members, tar_members])
@pytest.mark.parametrize("name", ["../x.jpg", "a/../../x.jpg", "/etc/x.jpg", "C:x.jpg", "..\\x.jpg", "\\\\host\\x.jpg"])
def test_names_that_lead_out_of_the_archive_are_refused(members: List, name: str) -> None:
    files = {name: b"1", "good.jpg": b"2"}
    content = zip_of(files) if members is zip_members else tar_of(files)
    assert refused(content, members) == [(name, "unsafe_name")]
    assert [one.name for one in found_in(content, members) if isinstance(one, Member)] == ["good.jpg"]


def test_a_nul_in_a_name_is_seen() -> None:
    content = zip_of({"a.jpgZ.exe": b"1"}).replace(b"a.jpgZ.exe", b"a.jpg\0.exe")
    assert refused(content, zip_members) == [("a.jpg\0.exe", "unsafe_name")]


@pytest.mark.parametrize("members", [zip_members, tar_members])
def test_of_members_of_one_name_the_first_counts(members: List) -> None:
    with pytest.warns(UserWarning, match="Duplicate") if members is zip_members else _nothing():
        content = _twice(members)
    found = [one for one in found_in(content, members) if isinstance(one, Member)]
    assert [one.length for one in found] == [5] and refused(content, members) == [("a.jpg", "duplicate_member")]


def _nothing() -> Any:
    return io.BytesIO()  # a context that does nothing


def _twice(members: List) -> bytes:
    stream = io.BytesIO()
    if members is zip_members:
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr("a.jpg", b"first")
            archive.writestr("a.jpg", b"the second")
        return stream.getvalue()
    return tar_of({"a.jpg": b"first"})[:1024] + tar_of({"a.jpg": b"the second"})


def test_names_that_are_not_utf_8_are_kept_readable() -> None:
    content = zip_of({"caf1.jpg": b"1"}).replace(b"caf1.jpg", b"caf\x82.jpg")
    assert list(good(content, zip_members)) == ["café.jpg"]  # code page 437, as the format says
    entry = tarfile.TarInfo("caf\udce9.jpg")
    header = entry.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
    assert list(good(header + bytes(1024), tar_members)) == ["café.jpg"]


def test_encrypted_members_links_and_other_methods_of_a_zip() -> None:
    content = bytearray(zip_of({"a.jpg": b"1", "b.jpg": b"2", "c.jpg": b"3"}))
    entries = [at for at in range(len(content)) if content[at : at + 4] == b"PK\x01\x02"]
    content[entries[0] + 8] |= 1
    struct.pack_into("<H", content, entries[1] + 10, 14)
    content[entries[2] + 5] = 3
    struct.pack_into("<I", content, entries[2] + 38, 0o120777 << 16)
    expected = [("a.jpg", "encrypted"), ("b.jpg", "unsupported_compression"), ("c.jpg", "link_or_device")]
    assert refused(bytes(content), zip_members) == expected


def test_members_that_share_bytes_and_members_that_claim_too_much() -> None:
    content = bytearray(zip_of({"a.jpg": b"1" * 99, "b.jpg": b"2" * 99, "c.jpg": b"3"}))
    entries = [at for at in range(len(content)) if content[at : at + 4] == b"PK\x01\x02"]
    struct.pack_into("<I", content, entries[1] + 42, 0)
    assert refused(bytes(content), zip_members) == [("a.jpg", "overlapping_members")]
    struct.pack_into("<I", content, entries[1] + 42, content.index(b"2" * 99) - 35)
    struct.pack_into("<I", content, entries[1] + 20, 1 << 20)
    assert refused(bytes(content), zip_members) == [("b.jpg", "overlapping_members")]
    bomb = zip_of({"a.jpg": bytes(5 << 20), "b.jpg": bytes(1000)}, zipfile.ZIP_DEFLATED)
    assert refused(bomb, zip_members) == [("a.jpg", "ratio_bomb")]


def test_no_more_members_than_the_limit_are_read() -> None:
    few, files = ArchiveLimits(members=3), {f"{k}.jpg": b"" for k in range(9)}
    for content, members in ((zip_of(files), zip_members), (tar_of(files), tar_members)):
        found = found_in(content, members, few)
        assert sum(isinstance(one, Member) for one in found) == 3
        assert refused(content, members, few) == [(None, "too_many_members")]


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_members_of_a_tar(kind: int) -> None:
    files = FILES if kind != tarfile.USTAR_FORMAT else {k: v for k, v in FILES.items() if len(k) < 100}
    assert good(tar_of(files, kind), tar_members) == files
    assert good(tar_of({}, kind), tar_members) == {}


def test_sizes_above_8_gigabytes_are_hopped_over() -> None:
    """Only headers are read: of a member of 9 GB, as GNU (base 256) and pax write it, and of the one behind it."""
    size = 9 << 30
    for kind in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        entry = tarfile.TarInfo("large.jpg")
        entry.size = size
        first, second = entry.tobuf(kind), tar_of({"small.jpg": b"x"})
        start = len(first) + size
        found = list(tar_members(_Gap(first, second, start), start + len(second), LIMITS))
        expected = [("large.jpg", size), ("small.jpg", 1)]
        assert [(one.name, one.length) for one in found if isinstance(one, Member)] == expected


class _Gap:
    """A file of `first`, bytes that are never read, and `second` from `start` on."""

    def __init__(self, first: bytes, second: bytes, start: int) -> None:
        self.first, self.second, self.start = first, second, start

    def __call__(self, offset: int, length: int) -> bytes:
        content, at = (self.first, offset) if offset < len(self.first) else (self.second, offset - self.start)
        assert at >= 0
        return content[at : at + length]


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_of_a_tar_are_refused(kind: bytes) -> None:
    assert refused(tar_with(type=kind, linkname="/etc/passwd"), tar_members) == [("x.jpg", "link_or_device")]


def test_sparse_files_are_refused_and_what_is_behind_them_is_read() -> None:
    sparse = tarfile.TarInfo("sparse.jpg")
    sparse.type = tarfile.GNUTYPE_SPARSE
    content = sparse.tobuf(tarfile.GNU_FORMAT) + tar_of({"a.jpg": b"1"})
    assert refused(content, tar_members) == [("sparse.jpg", "sparse_member")]
    assert [one.name for one in found_in(content, tar_members) if isinstance(one, Member)] == ["a.jpg"]
    pax = tar_with(pax_headers={"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}, size=9)
    assert refused(pax, tar_members) == [("x.jpg", "sparse_member")]


def test_a_tar_that_is_cut_off_or_damaged_gives_what_is_before() -> None:
    content = tar_of({"a.jpg": b"a" * 600, "b.jpg": b"b" * 600})
    second = content.index(b"b.jpg")
    assert refused(content[: second + 512 + 300], tar_members) == [("b.jpg", "truncated_archive")]
    assert refused(content[: second + 100], tar_members) == [(None, "truncated_archive")]
    damaged = content[:second] + b"c" + content[second + 1 :]
    assert refused(damaged, tar_members) == [(None, "broken_archive")]
    assert [one.name for one in found_in(damaged, tar_members) if isinstance(one, Member)] == ["a.jpg"]


def _append(path: Path, name: str, content: bytes, members: List) -> None:
    if members is zip_members:
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(name, content)
    else:
        with tarfile.open(path, "a") as tar:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


@pytest.mark.parametrize("members", [zip_members, tar_members])
def test_an_archive_that_grows_while_it_is_read_gives_what_it_held(tmp_path: Path, members: List) -> None:
    path, photos, added = tmp_path / "archive", {"a.jpg": b"a" * 600, "b.jpg": b"b" * 600}, b"c" * 30_000
    path.write_bytes((zip_of if members is zip_members else tar_of)(photos))
    size, before = path.stat().st_size, found_in(path.read_bytes(), members)
    _append(path, "c.jpg", added, members)
    grown = Reads(path.read_bytes())
    during = list(members(grown, size, LIMITS))  # opened before it grew, listed after
    for found in (before, during):
        read = [read_member(grown, one) for one in found if isinstance(one, Member)]
        contents = dict((one[0].name, one[1]) for one in read if not isinstance(one, RefusedMember))
        assert photos.items() <= contents.items() <= {**photos, "c.jpg": added}.items()


def test_an_extended_header_of_gigabytes_is_not_read() -> None:
    entry = tarfile.TarInfo("x")
    entry.type, entry.size = tarfile.XHDTYPE, 3 << 30
    reads = Reads(entry.tobuf(tarfile.USTAR_FORMAT) + bytes(2048))
    assert [one.error_class for one in tar_members(reads, 4 << 30, LIMITS) if isinstance(one, RefusedMember)] == [
        "broken_archive"
    ]
    assert reads.bytes == 512


_ZIP, _TAR = zip_of(FILES, zipfile.ZIP_DEFLATED), tar_of(FILES)


@settings(max_examples=300)
@given(
    st.sampled_from([(_ZIP, zip_members), (_TAR, tar_members)]),
    st.lists(st.tuples(st.integers(0, 20_000), st.integers(0, 255)), max_size=10),
    st.integers(0, 20_000),
)
def test_damaged_archives_give_members_that_lie_within_them(
    archive: tuple[bytes, List], changes: list[tuple[int, int]], kept: int
) -> None:
    content = bytearray(archive[0])
    for at, value in changes:
        content[at % len(content)] = value
    content = content[: max(1, kept)]
    for one in found_in(bytes(content), archive[1]):
        assert isinstance(one, RefusedMember) or (one.offset >= 0 and one.length >= 0)
