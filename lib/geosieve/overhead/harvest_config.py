"""What the configurations of all harvests of photos have in common."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import combinations

from pydantic import Field, model_validator

from geosieve.job.publishing import JobConfig
from geosieve.overhead.queries import Query, millionths
from geosieve.runtime.config import Config


class Box(Config):
    """A box in degrees, WGS-84. With `west` east of `east` it lies across ±180. It holds its southern and western
    borders, not the others, unless they are at 90 or 180.
    """

    south: float = Field(ge=-90, le=90)
    west: float = Field(ge=-180, le=180)
    north: float = Field(ge=-90, le=90)
    east: float = Field(ge=-180, le=180)

    @model_validator(mode="after")
    def _has_area(self) -> Box:
        if not (self.south < self.north and self.west != self.east):
            raise ValueError("a box has an area: south is below north, and west is not east")
        return self

    def queries(self, begin: int, end: int) -> list[Query]:
        """The box as one query or, across ±180, two. `begin`, `end`: seconds since 1970, UTC."""
        south, west, north, east = (
            millionths(Decimal(repr(degrees))) for degrees in (self.south, self.west, self.north, self.east)
        )
        half = millionths(Decimal(180))
        spans = [(west, east)] if west < east else [(west, half), (-half, east)]
        return [Query(south, a, north, b, begin, end) for a, b in spans if a < b]


class Uploaded(Config):
    """Days of upload, UTC; `before` is the first day that does not count."""

    since: date
    before: date

    @model_validator(mode="after")
    def _in_order(self) -> Uploaded:
        if self.since >= self.before:
            raise ValueError("since must be earlier than before")
        return self

    @property
    def seconds(self) -> tuple[int, int]:
        """Both ends in seconds since 1970, UTC."""
        since, before = (
            int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) for day in (self.since, self.before)
        )
        return since, before


class HarvestConfig(JobConfig):
    """Configuration of a harvest, without what only one service has."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$", description="partition value source=… of the table")
    boxes: list[Box] = Field(min_length=1, max_length=1000)
    uploaded: Uploaded
    downloads_at_once: int = Field(4, ge=1, le=32, description="photos that are downloaded at the same time")

    @model_validator(mode="after")
    def _apart(self) -> HarvestConfig:
        for one, other in combinations([query for box in self.boxes for query in box.queries(0, 1)], 2):
            if one.overlaps(other):
                raise ValueError("boxes overlap: their common photos would be in the harvest twice")
        return self
