"""Configuration of `build_pairs`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from geosieve.geo.s2 import MAX_LEVEL
from geosieve.images.photo_rows import PhotoLimits
from geosieve.images.read import ImagesInput
from geosieve.job.publishing import JobConfig
from geosieve.runtime.config import Config, RunId
from geosieve.splits.read import ChosenSplits

NAME = r"^[a-z][a-z0-9_]*$"


class ChipsInput(Config):
    """Committed runs of `chips`, and the view that the pairs get."""

    root: str
    name: str = Field(description="name of the set of chips")
    run: RunId = Field("latest", description="a run id, `latest`, or `all` (the latest chip of each image)")
    view: str = Field("chip", description="name of a zoom of cut_chips; another one is another set of pairs")


class Area(Config):
    """A name for the places of rasters whose URIs match `pattern` (`*` and `?`). The first area that fits counts."""

    name: str = Field(min_length=1, max_length=100)
    pattern: str = Field(min_length=1)


class Crowd(Config):
    """At most so many `photos` of one author at one place, an S2 cell. A hash of their ids says which ones."""

    photos: int = Field(ge=1)
    s2_level: int = Field(15, ge=0, le=MAX_LEVEL, description="15: a place is some 280 m wide; 13: 1.1 km")


class PairsConfig(JobConfig):
    """Configuration of `build_pairs`."""

    name: str = Field(pattern=NAME, description="name of the set of pairs; the table's partition column pair_set")
    images: ImagesInput
    chips: ChipsInput
    splits: ChosenSplits | None = Field(None, description="null: all pairs are one set")
    licences: Annotated[list[str], Field(min_length=1)] | Literal["any"] = Field(
        description="licences of the photos that may be used, as `images` has them; `any`: also photos without one"
    )
    areas: list[Area] = Field([], description="names of areas; of other rasters, their source is the area")
    crowd: Crowd | None = Field(None, description="null: no limit")
    longest: int = Field(500, ge=16, le=4096, description="pixels of a photo's longer side, at most")
    quality: int = Field(90, ge=1, le=100, description="quality of the photos' JPEG files")
    limits: PhotoLimits = Field(PhotoLimits(), description="as when the images were ingested")
