"""What a worker does with an archive on S3, for a process of its own: pyarrow may ask while it holds Python's lock.

Called with URIs; prints for each the number of whole members, or the class and text of the error that ends the task.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

from geosieve.images.archives import list_members, opened, read_member, stream_members
from geosieve.images.members import ArchiveLimits, Member
from geosieve.runtime.errors import GeosieveError

LIMITS = ArchiveLimits()


def whole_members(uri: str) -> int:
    members = list(list_members(uri, LIMITS))
    if isinstance(members[0], Member) and not members[0].name:
        found = stream_members(uri, members[0].compression, LIMITS, 1 << 30)
        return sum(isinstance(one, tuple) for one in found)
    with opened(uri) as (read_at, _, _):
        return sum(isinstance(read_member(read_at, one), tuple) for one in members if isinstance(one, Member))


def outcome(uri: str) -> str:
    try:
        return str(whole_members(uri))
    except GeosieveError as error:
        return f"{type(error).__name__}: {error}".replace("\n", " ")


if __name__ == "__main__":
    with ThreadPoolExecutor(len(sys.argv)) as pool:  # most of the time is spent waiting before the next try
        print("\n".join(pool.map(outcome, sys.argv[1:])))
