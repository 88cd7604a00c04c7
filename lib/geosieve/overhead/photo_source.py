"""What a service of photos must be able to do, so that `harvest` can get all of them. `flickr` is one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from geosieve.overhead.queries import Position, Query


@dataclass(frozen=True)
class Photo:
    """A photo, as its service describes it.

    `lat`, `lon` in degrees; `position` the same in millionths; `uploaded` in seconds since 1970, UTC; `captured_at`
    without a time zone, as cameras tell it. `author` is the account's id, which does not change; `author_name` and
    `page` are what an attribution names.
    """

    id: str
    lat: float
    lon: float
    position: Position
    uploaded: int
    url: str
    licence: str
    author: str
    author_name: str | None
    title: str | None
    page: str
    captured_at: datetime | None


@dataclass(frozen=True)
class Refused:
    """A photo that cannot be used: its id, if it has one, an error class as in `rejects`, and the reason in words."""

    id: str | None
    error_class: str
    message: str


@dataclass(frozen=True)
class Page:
    """One page of an answer. `total`: how many photos the whole answer has, as the service says."""

    total: int
    photos: list[Photo]
    refused: list[Refused]


class PhotoSource(Protocol):
    """A service that is asked for photos by box and time of upload.

    `most`: how many different photos an answer has at most, whatever its total says. `per_page`: photos on a page.
    `requests`: how many requests were made.
    """

    most: int
    per_page: int
    requests: int

    def page(self, query: Query, number: int) -> Page:
        """Page `number`, from 1, of the open, public photos of a query. Photos on borders may be among them.

        The order of photos must not change while pages are asked for. ConfigError or InputError if the service refuses
        the request for good, RetryableError if it does not answer in spite of several attempts.
        """
        ...
