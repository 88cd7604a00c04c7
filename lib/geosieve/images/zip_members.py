"""The members of a zip file, from its central directory, without reading their bytes.

Source: PKWARE, APPNOTE.TXT 6.3. Python's `zipfile` reads directories, too, but one bad name or field ends it, and it
cuts names at NUL characters.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geosieve.images.members import (
    ArchiveLimits,
    Member,
    ReadAt,
    RefusedMember,
    fault_of_name,
    is_ratio_bomb,
    text_of,
    too_many,
)

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

_END, _END_64, _LOCATOR_64 = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
_ENTRY, _LOCAL = b"PK\x01\x02", b"PK\x03\x04"
_TAIL = 22 + 65_535 + 20  # end record, its comment, and zip64's locator before it
_MOST_AT_ONCE = 4 << 20  # bytes of the directory that are read at a time
_METHODS = {0: "none", 8: "deflate"}
_ENCRYPTED, _STREAMED, _UTF8 = 1, 8, 0x800  # flags
_UNIX, _FILE_TYPE, _REGULAR = 3, 0o170000, (0, 0o100000)
_IN_ZIP64 = 0xFFFFFFFF
_ENTRY_SIZE = 46
_FAR = 1 << 62  # beyond the end of every file; a directory may name places that do not fit into 64 bits with a sign

LOCAL_HEADER = 30
"""Bytes of the header before each member, without its name and extra fields."""


@dataclass(frozen=True)
class _Directory:
    """Where the central directory is: offset, length and number of entries; `shift` is added to all offsets in it."""

    offset: int
    length: int
    entries: int
    shift: int


def zip_members(read_at: ReadAt, size: int, limits: ArchiveLimits) -> Iterator[Member | RefusedMember]:
    """The members of a zip file of `size` bytes, in the order of its directory. Folders are left out.

    If there is no directory, because the file is cut off, the members that are whole are found by their own headers.
    """
    directory = _directory(read_at, size)
    if directory is None and read_at(0, 4) != _LOCAL:
        yield RefusedMember(None, "broken_archive", "the content is of no zip")
        return
    if directory is None:
        yield from _checked(lambda: _by_local_headers(read_at, size), limits)
        yield RefusedMember(None, "truncated_archive", "a zip without a central directory; whole members were used")
        return
    yield from _checked(lambda: _entries(read_at, directory, limits), limits, directory.offset)


def data_offset(read_at: ReadAt, member: Member) -> int | None:
    """Where a member's stored bytes begin, from its own header; None if there is no such header at `member.offset`."""
    header = read_at(member.offset, LOCAL_HEADER)
    if len(header) < LOCAL_HEADER or not header.startswith(_LOCAL):
        return None
    name, extra = struct.unpack_from("<HH", header, 26)
    return member.offset + LOCAL_HEADER + int(name) + int(extra)


def _directory(read_at: ReadAt, size: int) -> _Directory | None:
    start = max(0, size - _TAIL)
    tail = read_at(start, size - start)
    at = tail.rfind(_END)
    while at >= 0:
        found = _from_end(read_at, size, tail, start, at)
        if found is not None:
            return found
        at = tail.rfind(_END, 0, at)  # those bytes also occur by chance, in a comment
    return None


def _from_end(read_at: ReadAt, size: int, tail: bytes, start: int, at: int) -> _Directory | None:
    if len(tail) < at + 22:
        return None
    entries, length, offset = struct.unpack_from("<HII", tail, at + 10)
    end = start + at
    if at >= 20 and tail[at - 20 : at - 16] == _LOCATOR_64:
        (where,) = struct.unpack_from("<Q", tail, at - 12)
        record = tail[where - start : where - start + 56] if where >= start else read_at(where, 56)
        if len(record) == 56 and record.startswith(_END_64):
            entries, length, offset = struct.unpack_from("<QQQ", record, 32)
            end = where
    # Bytes before the zip, such as a program that extracts it, shift all its offsets.
    shift = end - length - offset
    if shift < 0 or end > size:
        return None
    if entries and read_at(offset + shift, 4) != _ENTRY:
        return None
    return _Directory(offset + shift, length, entries, shift)


def _entries(read_at: ReadAt, directory: _Directory, limits: ArchiveLimits) -> Iterator[Member | RefusedMember]:
    buffer, done, at, number = b"", 0, 0, 0
    while True:
        if len(buffer) - at < _ENTRY_SIZE + 3 * 65_535 and done < directory.length:
            more = read_at(directory.offset + done, min(_MOST_AT_ONCE, directory.length - done))
            done = done + len(more) if more else directory.length
            buffer, at = buffer[at:] + more, 0
        if at == len(buffer):
            break
        lengths = struct.unpack_from("<HHH", buffer, at + 28) if len(buffer) - at >= _ENTRY_SIZE else (0, 0, 0)
        end = at + _ENTRY_SIZE + sum(lengths)
        if buffer[at : at + 4] != _ENTRY or end > len(buffer):
            break
        if number >= limits.members:
            yield too_many(limits)
            return
        yield from _entry(buffer[at:end], lengths, directory.shift)
        at, number = end, number + 1
    # Without zip64, the number of entries is known only modulo 65,536.
    if at != len(buffer) or (number - directory.entries) % 65_536:
        yield RefusedMember(None, "broken_archive", f"its directory breaks off after {number} members")


def _entry(entry: bytes, lengths: tuple[int, int, int], shift: int) -> Iterator[Member | RefusedMember]:
    made_by, flags, method = struct.unpack_from("<HxxHH", entry, 4)
    crc, length, size = struct.unpack_from("<III", entry, 16)
    attributes, offset = struct.unpack_from("<II", entry, 38)
    raw = entry[_ENTRY_SIZE : _ENTRY_SIZE + lengths[0]]
    extra = entry[_ENTRY_SIZE + lengths[0] : _ENTRY_SIZE + lengths[0] + lengths[1]]
    size, length, offset = _in_zip64(extra, size, length, offset)
    name = text_of(raw, "cp437")
    if name.endswith(("/", "\\")) and size == 0:
        return
    if made_by >> 8 == _UNIX and (attributes >> 16) & _FILE_TYPE not in _REGULAR:
        yield RefusedMember(name, "link_or_device", "a link or a device")
    elif flags & _ENCRYPTED:
        yield RefusedMember(name, "encrypted", "it is encrypted")
    elif method not in _METHODS:
        yield RefusedMember(name, "unsupported_compression", f"compressed by zip method {method}; 0 and 8 are read")
    else:
        yield Member(name, offset + shift, length, size, _METHODS[method], crc=crc)


def _in_zip64(extra: bytes, *values: int) -> tuple[int, ...]:
    """Values (size, length, offset) of which those that do not fit in 32 bits are in the extra field of zip64."""
    at, found = 0, list(values)
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == 1:
            field, place = extra[at + 4 : at + 4 + length], 0
            for k, value in enumerate(values):
                if value == _IN_ZIP64 and place + 8 <= len(field):
                    (found[k],) = struct.unpack_from("<Q", field, place)
                    place += 8
            break
        at += 4 + length
    return tuple(found)


def _by_local_headers(read_at: ReadAt, size: int) -> Iterator[Member | RefusedMember]:
    """The whole members from the start of the file, as far as their headers give their lengths."""
    at = 0
    while True:
        header = read_at(at, LOCAL_HEADER)
        if len(header) < LOCAL_HEADER or not header.startswith(_LOCAL):
            return
        flags, method = struct.unpack_from("<HH", header, 6)
        crc, length, whole, name_length, extra_length = struct.unpack_from("<IIIHH", header, 14)
        rest = read_at(at + LOCAL_HEADER, name_length + extra_length)
        whole, length = _in_zip64(rest[name_length:], whole, length)
        data = at + LOCAL_HEADER + name_length + extra_length
        if flags & _STREAMED or data + length > size:
            return  # the length comes after the data, or the member is cut off
        name = text_of(rest[:name_length], "cp437")
        if flags & _ENCRYPTED:
            yield RefusedMember(name, "encrypted", "it is encrypted")
        elif method not in _METHODS:
            yield RefusedMember(name, "unsupported_compression", f"compressed by zip method {method}; 0 and 8 are read")
        elif not (name.endswith("/") and whole == 0):
            yield Member(name, at, length, whole, _METHODS[method], data, crc)
        at = data + length


def _checked(
    members: Callable[[], Iterator[Member | RefusedMember]], limits: ArchiveLimits, end: int | None = None
) -> Iterator[Member | RefusedMember]:
    """Refuse members by name, ratio, repetition and overlap. `end`: where the members' bytes must end, if known.

    The members are read twice, so that three numbers of each are held and not all of it.
    """
    places, names = array("q"), array("q")
    for member in members():
        if isinstance(member, Member) and _fault(member, limits) is None:
            end_of_bytes = member.offset + LOCAL_HEADER + len(member.name) + member.length
            places.extend((min(member.offset, _FAR), min(end_of_bytes, _FAR)))
            names.append(hash(member.name))
    repeated = np.ones(len(names), dtype=bool)
    repeated[np.unique(names, return_index=True)[1]] = False
    overlapping = _overlapping(np.array(places, np.int64).reshape(-1, 2), repeated, end)
    number = 0
    for member in members():
        if isinstance(member, RefusedMember):
            yield member
            continue
        fault = _fault(member, limits)
        if fault is not None:
            yield fault
            continue
        if repeated[number]:
            yield RefusedMember(member.name, "duplicate_member", "another member before it has this name")
        elif overlapping[number]:
            yield RefusedMember(member.name, "overlapping_members", "its bytes reach into those of another member")
        else:
            yield member
        number += 1


def _fault(member: Member, limits: ArchiveLimits) -> RefusedMember | None:
    """Why a member is refused by itself; None if it is not."""
    fault = fault_of_name(member.name)
    if fault is not None:
        return RefusedMember(member.name, "unsafe_name", fault)
    if is_ratio_bomb(member.length, member.size, limits):
        told = f"{member.length:,} bytes claim to hold {member.size:,}; see limits.ratio"
        return RefusedMember(member.name, "ratio_bomb", told)
    return None


def _overlapping(places: Ints, repeated: Bools, end: int | None) -> Bools:
    """Which members reach into the next member, or pass the end of all members.

    `places`: where each member begins and ends, shape (n, 2). `repeated` ones, shape (n,), do not count. Of bytes that
    several members share, the last one may keep them: a member that claims too much costs itself only.
    """
    found = np.zeros(len(places), dtype=bool)
    others = np.flatnonzero(~repeated)
    order = others[np.lexsort((places[others, 1] - places[others, 0], places[others, 0]))]
    starts, ends = places[order].T
    found[order[:-1]] = ends[:-1] > starts[1:]
    if end is not None and order.size:
        found[order[-1]] = ends[-1] > end
    return found
