"""Members of archives: what one is, and which are refused by what the archive says of them. Archives are hostile.

Members are read where they lie and never extracted, so a name such as `../x` could do no harm here. It is refused
nevertheless, because ids and URIs made of it would deceive whoever extracts the archive later.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from pydantic import Field

from geosieve.runtime.config import Config

ReadAt = Callable[[int, int], bytes]
"""A function (offset, length) that returns bytes of a file; fewer if the file ends."""


@dataclass(frozen=True, slots=True)
class Member:
    """A file inside an archive.

    `name`: its path there. `offset`: where its header begins in the archive, in bytes. `length`: its stored length.
    `size`: its length once it is decompressed. `compression`: `none` or `deflate`. `data`: where its stored bytes
    begin, if that is known without its header. `crc`: CRC-32 of the decompressed bytes, if the archive has one.
    """

    name: str
    offset: int
    length: int
    size: int
    compression: str = "none"
    data: int | None = None
    crc: int | None = None


@dataclass(frozen=True, slots=True)
class RefusedMember:
    """A member that is not read, or a fault of the archive itself (`name` None).

    Error classes: unsafe_name, duplicate_member, link_or_device, sparse_member, encrypted, unsupported_compression,
    ratio_bomb, overlapping_members, truncated_archive, broken_archive, too_many_members.
    """

    name: str | None
    error_class: str
    message: str


class ArchiveLimits(Config):
    """What is still believed of an archive.

    While an archive is listed, a worker holds some 50 bytes of each member of a zip, and the names of a tar. The
    deflate format allows a ratio of 1,032; images are at most a few times larger than stored. Members of less than a
    megabyte may have any ratio.
    """

    members: int = Field(default=1_000_000, ge=1, le=10_000_000, description="largest number of members of one archive")
    nested: int = Field(default=0, ge=0, le=1, description="1: archives inside archives are entered, if not compressed")
    ratio: int = Field(default=200, ge=1, description="how many times larger than stored a member or archive may be")


_DRIVE = re.compile(r"^[A-Za-z]:")
_SMALL = 1 << 20


def text_of(name: bytes, otherwise: str) -> str:
    """A name as text: UTF-8 or, if it is not that, the single-byte encoding `otherwise`, which maps every byte."""
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        return name.decode(otherwise)


def fault_of_name(name: str) -> str | None:
    """Why a name is refused; None if it is a path below the folder into which somebody might extract the archive."""
    parts = re.split(r"[/\\]", name)
    if not name or "\0" in name:
        return "an empty name" if not name else "a name with a NUL character"
    if not parts[0] or _DRIVE.match(name):
        return "an absolute name"
    return "a name that leads out of the archive (..)" if ".." in parts else None


def is_ratio_bomb(length: int, size: int, limits: ArchiveLimits) -> bool:
    """Whether a member claims to be larger than images can be for their stored length, in bytes."""
    return size > _SMALL and size > limits.ratio * max(length, 1)


def too_many(limits: ArchiveLimits) -> RefusedMember:
    """What is said of an archive with more members than are read."""
    return RefusedMember(None, "too_many_members", f"more than {limits.members:,} members; the rest is not read")
