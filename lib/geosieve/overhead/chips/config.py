"""Configuration of `cut_chips`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from geosieve.images.read import ImagesInput
from geosieve.images.sources import CsvSource
from geosieve.job.publishing import JobConfig
from geosieve.overhead.strips.config import Bands
from geosieve.runtime.config import Config, RunId

NAME = r"^[A-Za-z][A-Za-z0-9_-]*$"


class Collection(Config):
    """A collection of `raster_catalog`: orthophotos, Sentinel-2 and the like."""

    name: str = Field(min_length=1, description="name of the collection")
    run: RunId = Field("latest", description="a run id of catalog_rasters, or `latest`")
    bands: Bands | None = Field(
        None, description="red, green and blue, from 1, or one for grey; by default 1, 2 and 3, or the only one"
    )
    ranges: list[tuple[float, float]] | None = Field(
        None,
        description="values that become 0 and 255: one pair, or one each for red, green and blue; 8-bit rasters need "
        "none",
    )
    priority: int | None = Field(None, description="in place of the priorities of its files")

    @field_validator("ranges")
    @classmethod
    def _ordered(cls, ranges: list[tuple[float, float]] | None) -> list[tuple[float, float]] | None:
        if ranges is not None and (len(ranges) not in (1, 3) or any(not low < high for low, high in ranges)):
            raise ValueError("one pair (black, white) with black below white, or three")
        return ranges


class RasterInput(Config):
    """What chips are cut from."""

    root: str = Field(min_length=1, description="root folder of the tables `strips` and `raster_catalog`")
    strips: list[str] = Field([], description="sources of prepared strips")
    strips_run: RunId = Field("latest", description="a run id of prepare_strips, `latest` (of each source) or `all`")
    collections: list[Collection] = []

    @model_validator(mode="after")
    def _some(self) -> RasterInput:
        if not self.strips and not self.collections:
            raise ValueError("name sources of strips, or collections of rasters")
        return self


class View(Config):
    """One chip for each position: its size in pixels and on the ground."""

    name: str = Field(default="chip", pattern=NAME)
    size_px: int = Field(default=750, ge=8, le=8192, description="width and height")
    resolution_m: float = Field(default=0.3, gt=0, allow_inf_nan=False, description="size of a pixel, in UTM")
    orientation: Literal["raster", "north"] = Field(
        default="raster",
        description="raster: up is where the raster's rows begin; north: up is the north of the UTM grid",
    )


class ChipsConfig(JobConfig):
    """Configuration of `cut_chips`. Positions are those of `images`, or of a list in `positions`."""

    name: str = Field(pattern=NAME, description="name of the set of chips")
    images: ImagesInput | None = None
    positions: CsvSource | None = None
    rasters: RasterInput
    views: list[View] = Field([View()], min_length=1)
    most_empty: float = Field(0.05, ge=0, lt=1, description="chips with a larger share of empty pixels are refused")
    resampling: Literal["bilinear", "cubic"] = Field("bilinear", description="where pixels cannot be taken as they are")
    format: Literal["png", "jpeg", "webp"] = "png"
    quality: int = Field(90, ge=1, le=100, description="of jpeg and webp")

    @field_validator("views")
    @classmethod
    def _different(cls, views: list[View]) -> list[View]:
        if len({view.name for view in views}) < len(views):
            raise ValueError("two views have the same name")
        return views

    @model_validator(mode="after")
    def _one_list(self) -> ChipsConfig:
        if (self.images is None) == (self.positions is None):
            raise ValueError("positions come from `images` or from `positions`: give one of them")
        if self.positions is not None and self.positions.files is not None:
            raise ValueError("positions.files has no effect: chips need positions only")
        return self
