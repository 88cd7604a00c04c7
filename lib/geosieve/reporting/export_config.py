"""Configuration of `export_regions`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from geosieve.overlay.read import OverlayInput
from geosieve.reporting.answers import AnswersInput
from geosieve.runtime.config import Config


class ImageKey(Config):
    """An image."""

    source: str
    image_id: str


class ExportConfig(Config):
    """Configuration of `export_regions`."""

    version: Literal[1] = 1
    answers: AnswersInput
    overlay: OverlayInput = Field(description="the overlay that was ranked")
    images: list[ImageKey] = Field([], description="the images whose answers are exported")
    where: str = Field("", description="or a condition in SQL on the columns of image_summary, e.g. area_50_km2 < 1000")
    most_images: int = Field(100, ge=1, le=10_000, description="if there are more, nothing is written")
    regions: int = Field(1_000, ge=1, le=10_000, description="leading regions of an image at most")
    output: str = Field(
        pattern=r"[^/]\.(parquet|gpkg|fgb)$",
        description="a file on any store: GeoParquet, GeoPackage or FlatGeobuf by its extension; one that exists is "
        "replaced",
    )

    @model_validator(mode="after")
    def _one(self) -> ExportConfig:
        if bool(self.images) == bool(self.where):
            raise ValueError("either images or where")
        return self
