"""The members of an uncompressed tar file, by hopping from header to header.

Source: POSIX.1-2017, `pax`, with the extensions of GNU tar for long names and large numbers. Python's `tarfile` reads
headers, too, but holds extended headers of any size in memory and ends at the first damaged one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from geosieve.images.members import ArchiveLimits, Member, ReadAt, RefusedMember, fault_of_name, text_of, too_many

_BLOCK = 512
_LARGEST_EXTENSION = 1 << 20  # bytes of a long name or a pax header; paths have at most a few thousand
_REGULAR, _LINKS, _DEVICES = (b"\0", b"0", b"7"), (b"1", b"2"), (b"3", b"4", b"6")
_EXTENDED = (b"L", b"K", b"x", b"g")  # headers that say something of the next one
_LONG_NAME, _PAX, _SPARSE = b"L", b"x", b"S"


@dataclass(frozen=True, slots=True)
class _Entry:
    """One header with what extended headers before it say: name, kind, where it begins, and where its bytes lie."""

    name: str
    kind: bytes
    offset: int
    data: int
    length: int
    is_sparse: bool


def tar_members(read_at: ReadAt, size: int, limits: ArchiveLimits) -> Iterator[Member | RefusedMember]:
    """The members of a tar file of `size` bytes, in its order. Folders are left out.

    Of a file that is cut off, the members that are whole are used. After a damaged header, nothing more is read, since
    nothing says where the next one is.
    """
    names: set[str] = set()
    for entry in _entries(read_at, size):
        if isinstance(entry, RefusedMember):
            yield entry
            continue
        name = entry.name
        if entry.is_sparse:
            yield RefusedMember(name, "sparse_member", "a sparse file")
        elif entry.kind in _LINKS or entry.kind in _DEVICES:
            yield RefusedMember(name, "link_or_device", "a link" if entry.kind in _LINKS else "a device or a pipe")
        elif entry.kind in _REGULAR and not name.endswith("/"):
            fault = fault_of_name(name)
            if fault is not None:
                yield RefusedMember(name, "unsafe_name", fault)
            elif name in names:
                yield RefusedMember(name, "duplicate_member", "another member before it has this name")
            elif len(names) >= limits.members:
                yield too_many(limits)
                return
            else:
                names.add(name)
                yield Member(name, entry.offset, entry.length, entry.length, data=entry.data)


def _entries(read_at: ReadAt, size: int) -> Iterator[_Entry | RefusedMember]:
    """All headers that are not extended headers. A fault of the archive comes last."""
    at, pax = 0, dict[str, str]()
    long_name: bytes | None = None
    while True:
        header = read_at(at, _BLOCK)
        if len(header) < _BLOCK:
            if header or not at:
                yield RefusedMember(None, "truncated_archive", "the tar is cut off; whole members were used")
            return  # many tars lack the two empty blocks at the end
        if not header.strip(b"\0"):
            return
        length, kind, data = _number(header[124:136]), header[156:157], at + _BLOCK
        if length is None or not is_header(header):
            yield RefusedMember(None, "broken_archive", f"a damaged header at byte {at:,}; nothing behind it was read")
            return
        if kind in _EXTENDED:
            if length > _LARGEST_EXTENSION:
                yield RefusedMember(None, "broken_archive", f"an extended header of {length:,} bytes at byte {at:,}")
                return
            content = read_at(data, length)
            if kind == _LONG_NAME:
                long_name = content.rstrip(b"\0")
            elif kind == _PAX:
                pax = _pax(content)
            at = data + _padded(length)
            continue
        length = int(pax["size"]) if pax.get("size", "").isdecimal() else length
        length = 0 if kind in _LINKS else length
        name = pax.get("path") or text_of(_name(header) if long_name is None else long_name, "latin-1")
        is_sparse = kind == _SPARSE or any(key.startswith("GNU.sparse") for key in pax)
        if kind == _SPARSE:
            data = _behind_sparse_map(read_at, header, data)
        if data + length > size:
            yield RefusedMember(name, "truncated_archive", "its bytes are cut off")
            return
        yield _Entry(name, kind, at, data, length, is_sparse)
        at, pax, long_name = data + _padded(length), {}, None


def _behind_sparse_map(read_at: ReadAt, header: bytes, data: int) -> int:
    """Where the bytes of an old GNU sparse file begin: blocks that go on with its map come first."""
    more = header[482]
    while more:
        block = read_at(data, _BLOCK)
        more = block[504] if len(block) == _BLOCK else 0
        data += _BLOCK
    return data


def _padded(length: int) -> int:
    return -(-length // _BLOCK) * _BLOCK


def _name(header: bytes) -> bytes:
    name = header[:100].split(b"\0", 1)[0]
    prefix = header[345:500].split(b"\0", 1)[0] if header[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _number(field: bytes) -> int | None:
    """A number in octal digits or, with the highest bit set, in base 256; None if it is neither or negative."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    digits = field.replace(b"\0", b" ").strip()
    try:
        return int(digits or b"0", 8)
    except ValueError:
        return None


def is_header(header: bytes) -> bool:
    """Whether 512 bytes are a header: its checksum is the sum of all bytes, with blanks in its own place."""
    told = _number(header[148:156])
    return told == sum(header[:148]) + 8 * 32 + sum(header[156:])


def _pax(content: bytes) -> dict[str, str]:
    """The records `length key=value\\n` of a pax header; what follows a damaged one is left out."""
    found: dict[str, str] = {}
    at = 0
    while at < len(content):
        digits, blank, _ = content[at : at + 20].partition(b" ")
        if not blank or not digits.isdigit() or not at + int(digits) <= len(content):
            break
        key, equals, value = content[at + len(digits) + 1 : at + int(digits) - 1].partition(b"=")
        if equals:
            found[text_of(key, "latin-1")] = text_of(value, "latin-1")
        at += max(int(digits), 1)
    return found
