"""Reading archives in workers: which members an archive has, and their bytes, read where they lie.

A zip and a plain tar can be entered anywhere: their members are listed without reading them, and any task can then read
any of them. A compressed tar can only be read from its start, by one task.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pyarrow as pa
from pyarrow import NativeFile

from geosieve.images.members import ArchiveLimits, Member, ReadAt, RefusedMember
from geosieve.images.tar_members import is_header, tar_members
from geosieve.images.zip_members import LOCAL_HEADER, data_offset, zip_members
from geosieve.runtime.store import open_input

SUFFIXES = (".zip", *(f".{name}" for name in ("tar", "tar.gz", "tgz", "tar.bz2", "tbz2", "tar.xz", "txz")), ".tar.zst")
"""Names of archives end in these."""

_FIRST = 512
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_PACKED = {b"\x1f\x8b": "tar.gz", b"BZh": "tar.bz2", b"\xfd7zXZ\0": "tar.xz", b"\x28\xb5\x2f\xfd": "tar.zst"}
_UNPACK: dict[str, Callable[[Any], Any]] = {
    "tar.gz": lambda file: gzip.GzipFile(fileobj=file),
    "tar.bz2": bz2.BZ2File,
    "tar.xz": lzma.LZMAFile,
    "tar.zst": lambda file: pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd"),
}
_DAMAGE = (EOFError, OSError, zlib.error, lzma.LZMAError)
_ENDLESS = 1 << 62
_SKIPPED_AT_ONCE = 1 << 20
_EXTRA = 64  # bytes of extra fields that a zip's member is expected to have in its header; zip tools write 0 to 36
_AHEAD, _AHEAD_REMOTE = 1 << 16, 1 << 12  # bytes read for a tar's header; extended headers are among them


def is_archive(name: str) -> bool:
    """Whether a file is an archive by its name."""
    return name.lower().endswith(SUFFIXES)


def kind_of(first: bytes, name: str) -> str | None:
    """What a file is by its first 512 bytes, whatever its name: zip, tar, tar.gz, tar.bz2, tar.xz, tar.zst or None."""
    if first.startswith(_ZIP):
        return "zip"
    packed = next((kind for magic, kind in _PACKED.items() if first.startswith(magic)), None)
    if packed is not None:
        return packed
    if len(first) == _FIRST and is_header(first):
        return "tar"
    # Bytes before a zip, such as those of a program that extracts it, do not make it another file.
    return "zip" if name.lower().endswith(".zip") else None


@contextmanager
def opened(uri: str) -> Iterator[tuple[ReadAt, int, Any]]:
    """A file on any store as (reader at an offset, size in bytes, file). Errors are those of `open_input`."""
    with open_input(uri) as file:

        def read_at(offset: int, length: int) -> bytes:
            file.seek(offset)
            content: bytes = file.read(length)
            return content

        yield read_at, int(file.size()), file


def list_members(uri: str, limits: ArchiveLimits) -> Iterator[Member | RefusedMember]:
    """The members of an archive. A compressed tar has one Member without a name, whose `compression` is its kind.

    With `limits.nested`, the members of a zip or a plain tar that is stored in it without compression stand in its
    place, under its name; other archives inside are refused as nested_archive. Raises the errors of `open_input`.
    """
    with opened(uri) as (read_at, size, _):
        kind = kind_of(read_at(0, _FIRST), uri)
        if size == 0:
            yield RefusedMember(None, "empty_file", "the file has 0 bytes")
        elif kind is None:
            yield RefusedMember(None, "broken_archive", "the content is of no archive that is read here")
        elif kind in ("zip", "tar"):
            for member in _listed(kind, _ahead(read_at, uri) if kind == "tar" else read_at, size, limits):
                if isinstance(member, Member) and is_archive(member.name):
                    yield from _nested(read_at, member, limits)
                else:
                    yield member
        else:
            yield Member("", 0, size, size, kind)


def _listed(kind: str, read_at: ReadAt, size: int, limits: ArchiveLimits) -> Iterator[Member | RefusedMember]:
    return (zip_members if kind == "zip" else tar_members)(read_at, size, limits)


def _nested(read_at: ReadAt, archive: Member, limits: ArchiveLimits) -> Iterator[Member | RefusedMember]:
    """The members of an archive inside an archive, at their places in the outer one."""
    data = data_offset(read_at, archive) if archive.data is None else archive.data
    if not limits.nested or data is None or archive.compression != "none":
        why = "it is compressed and cannot be entered" if limits.nested else "it is not entered; see limits.nested"
        yield RefusedMember(archive.name, "nested_archive", f"an archive inside an archive: {why}")
        return

    def read_inside(offset: int, length: int) -> bytes:
        return read_at(data + offset, max(0, min(length, archive.length - offset)))

    kind = kind_of(read_inside(0, _FIRST), archive.name)
    if kind not in ("zip", "tar"):
        yield RefusedMember(
            archive.name, "nested_archive", "an archive inside an archive: it is no zip and no plain tar"
        )
        return
    for member in _listed(kind, read_inside, archive.length, limits):
        name = archive.name if member.name is None else f"{archive.name}/{member.name}"
        if isinstance(member, RefusedMember):
            yield replace(member, name=name)
        elif is_archive(member.name):
            yield RefusedMember(name, "nested_archive", "an archive inside an archive inside an archive")
        else:
            inner = None if member.data is None else data + member.data
            yield replace(member, name=name, offset=data + member.offset, data=inner)


def _ahead(read_at: ReadAt, uri: str) -> ReadAt:
    """Reads at least `_AHEAD` bytes at a time, and answers from them while it can."""
    least = _AHEAD_REMOTE if "://" in uri and not uri.startswith("file:") else _AHEAD
    start, held = 0, b""

    def read(offset: int, length: int) -> bytes:
        nonlocal start, held
        if not (start <= offset and offset + length <= start + len(held)):
            start, held = offset, read_at(offset, max(length, least))
        return held[offset - start : offset - start + length]

    return read


def read_member(read_at: ReadAt, member: Member, most: int | None = None) -> tuple[Member, bytes] | RefusedMember:
    """A member of a zip or a plain tar with its place `data`, and its decompressed bytes: all, or at most `most`.

    Refused as broken_member if its own header is missing, if its bytes end early or do not decompress, or if its
    checksum differs. The checksum of a part is not known.
    """
    length = member.length if most is None else min(member.length, most)
    found = _stored(read_at, member, length)
    if found is None:
        return RefusedMember(member.name, "broken_member", "the archive's directory leads to no member")
    data, content = found
    if len(content) < length:
        return RefusedMember(member.name, "broken_member", "its bytes are cut off")
    if member.compression != "none":
        try:
            # One byte more than is told shows a member that is larger than its archive says.
            content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, most or member.size + 1)
        except zlib.error as error:
            return RefusedMember(member.name, "broken_member", f"its bytes do not decompress: {error}")
    if most is not None:
        return replace(member, data=data), content
    if len(content) != member.size:
        return RefusedMember(member.name, "broken_member", f"it is not of the {member.size:,} bytes it should be")
    if member.crc is not None and zlib.crc32(content) != member.crc:
        return RefusedMember(member.name, "broken_member", "its checksum (CRC-32) differs")
    return replace(member, data=data), content


def _stored(read_at: ReadAt, member: Member, length: int) -> tuple[int, bytes] | None:
    """Where a member's stored bytes begin, and the first `length` of them; None if it has no header.

    Mostly this takes one request.
    """
    if member.data is not None:
        return member.data, read_at(member.data, length)
    header = LOCAL_HEADER + len(member.name.encode()) + _EXTRA
    content = read_at(member.offset, header + length)
    data = data_offset(lambda offset, length: content[offset - member.offset :][:length], member)
    if data is None:
        return None
    start = data - member.offset
    if start <= header:
        return data, content[start : start + length]
    return data, read_at(data, length)


def stream_members(
    uri: str, kind: str, limits: ArchiveLimits, largest: int
) -> Iterator[tuple[Member, bytes | None] | RefusedMember]:
    """The members of a compressed tar with their bytes, in one pass from its start.

    `kind`: as `kind_of` says. Bytes of members of more than `largest` are skipped, and given as None. Raises the errors
    of `open_input`.
    """
    with opened(uri) as (_, size, file):
        source = Source(file)
        stream = _Forward(_UNPACK[kind](source), limits.ratio * size + _SKIPPED_AT_ONCE)
        try:
            for member in tar_members(stream.read_at, _ENDLESS, limits):
                if isinstance(member, RefusedMember):
                    yield member
                    continue
                assert member.data is not None  # a tar's members are found with it
                content = None if member.length > largest else stream.read_at(member.data, member.length)
                if content is not None and len(content) < member.length:
                    yield RefusedMember(member.name, "truncated_archive", "its bytes are cut off")
                    return
                yield member, content
        except _TooMuch:
            yield RefusedMember(None, "ratio_bomb", f"it expands to more than {limits.ratio} times its size")
        except _DAMAGE as error:
            if source.failure is not None:
                raise source.failure from None
            cut = isinstance(error, EOFError) or "truncated" in str(error).lower()
            name = "truncated_archive" if cut else "broken_archive"
            yield RefusedMember(None, name, f"it does not decompress further: {str(error)[:150]}")


class Source(io.RawIOBase):
    """A file that remembers the failure of its store: a decompressor or a Parquet reader fails with one of its own."""

    def __init__(self, file: NativeFile) -> None:
        self._file = file
        self.failure: OSError | None = None

    def read(self, size: int = -1) -> bytes:
        try:
            content: bytes = self._file.read(size if size >= 0 else None)
        except OSError as error:
            self.failure = error
            raise
        return content

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


class _TooMuch(Exception):
    """A stream has given more bytes than an honest archive of its size holds."""


class _Forward:
    """A stream that is read at ascending offsets."""

    def __init__(self, stream: Any, most: int) -> None:
        self._stream, self._at, self._most = stream, 0, most

    def read_at(self, offset: int, length: int) -> bytes:
        while self._at < offset:
            if not self._read(min(offset - self._at, _SKIPPED_AT_ONCE)):
                return b""
        return self._read(length)

    def _read(self, length: int) -> bytes:
        parts: list[bytes] = []
        while length:
            part: bytes = self._stream.read(length)
            if not part:
                break
            parts.append(part)
            length, self._at = length - len(part), self._at + len(part)
            if self._at > self._most:
                raise _TooMuch
        return b"".join(parts)
