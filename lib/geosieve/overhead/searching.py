"""All photos of a query, by queries that a photo service answers in full.

A query whose answer would be too long is divided, until each answer is complete. What each query has led to is kept as
a small file, so that a harvest that is started again does not ask again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from geosieve.overhead.photo_source import Page, Photo, PhotoSource, Refused
from geosieve.overhead.queries import Query, divided
from geosieve.runtime.store import StoreFiles, read_file, write_file


@dataclass(frozen=True)
class Found:
    """The complete answer to a query: its photos, in the order of their ids, and what is refused; each once.

    `short`: how many more photos the service has promised, though it was asked twice if it repeated itself.
    """

    photos: list[Photo]
    refused: list[Refused]
    short: int


def complete_answers(source: PhotoSource, query: Query, folder: str) -> Iterator[tuple[Query, Found]]:
    """The parts of a query that are answered in full, with their answers, one by one. Every photo is in one of them.

    What is known already is read from `folder`, and what is asked is written there. Errors of `PhotoSource.page` and of
    the store.
    """
    waiting = [query]
    while waiting:
        part = waiting.pop()
        outcome = _read(folder, part)
        if outcome is None:
            outcome = _ask(source, part)
            _write(folder, part, outcome)
        if isinstance(outcome, Found):
            yield part, outcome
        else:
            waiting.extend(reversed(outcome))


def _ask(source: PhotoSource, query: Query) -> Found | list[Query]:
    """The answer to a query, or its parts if it has too many photos."""
    first = source.page(query, 1)
    seen: dict[str, Photo | Refused] = {}
    total, repeated = _collect(source, query, first, seen)
    if total > source.most:
        parts = divided(query, [photo.position for photo in first.photos])
        if parts:
            return parts
        seen["too_many"] = Refused(
            None, "too_many", f"{total} photos at one place and second: {source.most} at most can be had"
        )
    elif repeated and len(seen) < total:
        # The order changed between two pages: what moved forward is on none of them. It is asked for once more.
        total, _ = _collect(source, query, source.page(query, 1), seen)
    photos = [photo for photo in seen.values() if isinstance(photo, Photo)]
    mine = [photo for photo in photos if query.has(photo.position, photo.uploaded)]
    elsewhere = [
        Refused(photo.id, "outside", "the service returned it for a box or time that it is not in")
        for photo in photos
        if not query.has(photo.position, photo.uploaded) and not query.borders(photo.position, photo.uploaded)
    ]
    refused = [photo for photo in seen.values() if isinstance(photo, Refused)]
    return Found(sorted(mine, key=lambda photo: photo.id), [*refused, *elsewhere], max(0, total - len(seen)))


def _collect(source: PhotoSource, query: Query, page: Page, seen: dict[str, Photo | Refused]) -> tuple[int, bool]:
    """Add the photos of all pages, from the first one on, to `seen`. Returns the last total, and whether ids repeated.

    If an answer becomes too long, its further pages are not asked for, unless the query cannot be divided.
    """
    number, mine, repeated = 1, set[str](), False
    hopeless = not divided(query, [photo.position for photo in page.photos])
    while True:
        entries: list[Photo | Refused] = [*page.photos, *page.refused]
        for entry in entries:
            key = entry.id or f"{number} {len(mine)}"
            repeated |= key in mine
            mine.add(key)
            seen[key] = entry
        last = -(-min(page.total, source.most) // source.per_page)
        if number >= last or (page.total > source.most and not hopeless):
            return page.total, repeated
        number += 1
        page = source.page(query, number)


def _uri(folder: str, query: Query) -> str:
    return f"{folder}/{query.key}.json"


def _read(folder: str, query: Query) -> Found | list[Query] | None:
    uri = _uri(folder, query)
    if not StoreFiles().exists(uri):
        return None
    content = json.loads(read_file(uri))
    if "parts" in content:
        return [Query(*part) for part in content["parts"]]
    return Found(
        [_photo(entry) for entry in content["photos"]],
        [Refused(**entry) for entry in content["refused"]],
        content["short"],
    )


def _photo(entry: dict[str, Any]) -> Photo:
    captured = entry["captured_at"]
    return Photo(
        **{
            **entry,
            "position": tuple(entry["position"]),
            "captured_at": datetime.fromisoformat(captured) if captured else None,
        }
    )


def _write(folder: str, query: Query, outcome: Found | list[Query]) -> None:
    if isinstance(outcome, Found):
        content = asdict(outcome)
    else:
        content = {"parts": [list(asdict(part).values()) for part in outcome]}
    write_file(_uri(folder, query), json.dumps(content, default=datetime.isoformat).encode())
