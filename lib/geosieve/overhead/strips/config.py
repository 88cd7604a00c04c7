"""Configuration of `prepare_strips`."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from geosieve.job.publishing import JobConfig
from geosieve.runtime.config import Config


def _three(bands: list[int]) -> list[int]:
    if len(bands) not in (1, 3) or min(bands) < 1:
        raise ValueError("three bands, or one for grey, counted from 1")
    return bands


Bands = Annotated[list[int], AfterValidator(_three)]
"""Numbers of red, green and blue, from 1, or of one band for grey."""


class StripFacts(Config):
    """What is known of the strips whose name matches `pattern` (shell wildcards). The first that matches counts."""

    pattern: str
    sensor: str | None = None
    captured_at: datetime | None = Field(None, description="time of capture; UTC unless it names an offset")
    off_nadir_deg: float | None = Field(None, ge=0, lt=90)
    priority: int = Field(0, description="where strips overlap, the lowest number is preferred")


class Panchromatic(Config):
    """The name of a strip's panchromatic partner: its URI with the last `replace` replaced by `by`."""

    replace: str = Field(min_length=1, description="a part of the strip's URI, e.g. /MUL")
    by: str = Field(description="what stands there in the partner's URI, e.g. /PAN")


class StripSource(Config):
    """Strips of one kind, and how they become pictures."""

    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$", description="name of the source of strips")
    uri: str = Field(min_length=1, description="a file, a folder or a glob, local or on S3")
    extensions: list[str] = Field([".tif", ".tiff"], description="extensions of the files to take from a folder")
    vrt_sources: list[str] = Field([], description="folders of the files that VRTs may name; VRTs are refused if empty")
    nodata: float | None = Field(None, description="value that means no data; overrides what the files declare")
    bands: Bands | None = Field(
        None, description="red, green and blue, from 1, or one band; by default from the number of bands"
    )
    panchromatic: Panchromatic | None = Field(None, description="sharpen each strip with a partner of this name")
    percentiles: tuple[float, float] = Field(
        (2.0, 98.0), description="of a band's valid pixels: at and below the first black, at and above the second white"
    )
    ranges: list[tuple[float, float]] | None = Field(
        None, description="fixed values for black and white instead: one pair, or one each for red, green and blue"
    )
    resolution_m: float = Field(0.3, gt=0, allow_inf_nan=False, description="size of the pixels that are written")
    resampling: Literal["nearest", "bilinear", "cubic"] = "bilinear"
    compression: Literal["deflate", "zstd", "jpeg"] = Field("deflate", description="jpeg, quality 90, loses details")
    facts: list[StripFacts] = []

    @field_validator("percentiles")
    @classmethod
    def _ordered(cls, percentiles: tuple[float, float]) -> tuple[float, float]:
        if not 0.0 <= percentiles[0] < percentiles[1] <= 100.0:
            raise ValueError("two percentages, the lower first, from 0 to 100")
        return percentiles

    @model_validator(mode="after")
    def _levels(self) -> StripSource:
        if self.ranges is None:
            return self
        if len(self.ranges) not in (1, 3) or any(not low < high for low, high in self.ranges):
            raise ValueError("ranges: one pair (black, white) with black below white, or three")
        if self.percentiles != (2.0, 98.0):
            raise ValueError("percentiles have no effect beside ranges: leave one of them out")
        return self


class StripsConfig(JobConfig):
    """Configuration of `prepare_strips`."""

    strips: StripSource
