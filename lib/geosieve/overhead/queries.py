"""Queries of a photo service, a box and a time of upload each, and how one is divided.

Borders are whole numbers, millionths of a degree and seconds, so that a division is exact: every photo that belongs to
a query belongs to exactly one of its parts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import pairwise

PER_DEGREE = 1_000_000
"""Photo services round positions to six decimals, and cut what is finer from the borders of boxes."""

SMALLEST = 16
"""Sides of fewer millionths of a degree (1.8 m) are not divided."""

_NEAREST = 8
"""A line of division keeps an eighth of the side to each end, so that boxes become smaller whatever the sample is."""

Position = tuple[int, int]
"""Latitude and longitude in millionths of a degree, rounded down."""


def millionths(degrees: Decimal) -> int:
    """Degrees in millionths, rounded down. A position is in a box exactly if it is after rounding."""
    return int((degrees * PER_DEGREE).to_integral_value("ROUND_FLOOR"))


@dataclass(frozen=True)
class Query:
    """Photos in a box (millionths of a degree) that were uploaded in a time (seconds since 1970, UTC).

    Southern and western borders and the begin belong to it; northern and eastern borders and the end do not, except
    for a border at 90° or 180°, beyond which there is no other box.
    """

    south: int
    west: int
    north: int
    east: int
    begin: int
    end: int

    @property
    def key(self) -> str:
        """A name for files, which tells queries apart."""
        return "_".join(map(str, (self.south, self.west, self.north, self.east, self.begin, self.end)))

    def has(self, position: Position, uploaded: int) -> bool:
        """Whether a photo belongs to the query."""
        lat, lon = position
        return (
            (self.south <= lat < self.north or lat == self.north == 90 * PER_DEGREE)
            and (self.west <= lon < self.east or lon == self.east == 180 * PER_DEGREE)
            and self.begin <= uploaded < self.end
        )

    def borders(self, position: Position, uploaded: int) -> bool:
        """Whether a photo lies on a border that does not belong to the query: services return it all the same."""
        lat, lon = position
        inside = self.south <= lat <= self.north and self.west <= lon <= self.east and self.begin <= uploaded < self.end
        return inside and not self.has(position, uploaded)

    def overlaps(self, other: Query) -> bool:
        """Whether the boxes have an area in common."""
        return max(self.south, other.south) < min(self.north, other.north) and max(self.west, other.west) < min(
            self.east, other.east
        )


def divided(query: Query, sample: Sequence[Position]) -> list[Query]:
    """Parts of a query that has too many photos; empty if it cannot be divided any more.

    The box is divided in four, by lines through the medians of `sample`, the positions of some of its photos: so the
    parts have about equally many photos, and a dense place takes few divisions. If half of the sample lies at one
    place, or the box is too small, the time of upload is divided into four equal parts.
    """
    crowd = max(Counter(sample).values(), default=0)
    small = query.north - query.south < SMALLEST or query.east - query.west < SMALLEST
    if (small or 2 * crowd > len(sample) > 0) and query.end - query.begin > 1:
        return _by_time(query)
    return [] if small else _by_place(query, sample)


def _by_time(query: Query) -> list[Query]:
    length = query.end - query.begin
    times = sorted({query.begin + length * k // 4 for k in range(5)})
    return [replace(query, begin=a, end=b) for a, b in pairwise(times)]


def _by_place(query: Query, sample: Sequence[Position]) -> list[Query]:
    middle = _line(query.west, query.east, [lon for _, lon in sample])
    parts = []
    for west, east in ((query.west, middle), (middle, query.east)):
        line = _line(query.south, query.north, [lat for lat, lon in sample if west <= lon < east])
        parts += [
            replace(query, south=south, north=north, west=west, east=east)
            for south, north in ((query.south, line), (line, query.north))
        ]
    return parts


def _line(low: int, high: int, values: list[int]) -> int:
    """Where to divide a side: just behind the median of the values, or in the middle if there are none.

    Behind it, because services count photos on a border on both of its sides, and many may lie at the median.
    """
    margin = (high - low) // _NEAREST
    line = sorted(values)[(len(values) - 1) // 2] + 1 if values else (low + high) // 2
    return min(max(line, low + margin), high - margin)
