"""Requests of a harvest against the least possible, photos / 250 rounded up, behind an answer's limit of 4,000 photos.

The service is that of the tests (tests/overhead/photo_servers.py), on loopback, with SYNTHETIC cities: streets, sights,
and in one of them 9,000 photos at one place. Its tests say that each photo is found, and found once. For comparison,
the same search with boxes that are divided in the middle, and not where their photos lie.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from unittest.mock import patch

from benchmarks.timing import bar
from geosieve.overhead import searching
from geosieve.overhead.flickr import Flickr, FlickrConfig
from geosieve.overhead.queries import Position, Query, divided

CITIES = ((60_000, 1, 0), (60_000, 2, 9_000), (200_000, 12, 0))  # photos, seed, photos at one place
BAR = 1.5


def in_the_middle(query: Query, _: list[Position]) -> list[Query]:
    """Parts of a query that know nothing of its photos."""
    return divided(query, [])


def requests(photos: int, seed: int, crowd: int) -> tuple[int, int]:
    """Photos that the search finds, and its requests."""
    # Of the tests, which are no package.
    from photo_servers import API, CONFIG, KEY, Service, city, query, serving

    service = Service(city(photos, seed, crowd))
    with serving(service) as web, tempfile.TemporaryDirectory() as folder:
        source = Flickr(FlickrConfig(**CONFIG, output="tables"), KEY, web, API, sleep=lambda seconds: None)
        found = sum(len(answer.photos) for _, answer in searching.complete_answers(source, query(), folder))
    return found, service.searches


def main() -> int:
    """Return exit code 1 if the bar is missed."""
    tests = Path(__file__).parents[1] / "tests"
    sys.path += [str(tests), str(tests / "overhead")]
    met = []
    for city in CITIES:
        found, asked = requests(*city)
        with patch.object(searching, "divided", in_the_middle):
            _, blindly = requests(*city)
        least = -(-found // 250)
        crowd = f", {city[2]:,} of them at one place" if city[2] else ""
        print(f"  {found:,} photos{crowd}: {asked} requests, the least are {least}; divided in the middle: {blindly}, "
              f"{blindly / least:.2f} times")  # fmt: skip
        met.append(bar("requests over the least possible", asked / least, BAR))
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
