"""Configuration of `report_archive`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from geosieve.images.photo_rows import PhotoLimits
from geosieve.overlay.read import OverlayInput
from geosieve.reporting.answers import AnswersInput
from geosieve.runtime.config import Config, RunId


class Thumbnails(Config):
    """Small copies of the images in detail, inside the page."""

    root: str | None = Field(None, description="root of the table `images`; null: that of the answers")
    side: int = Field(160, ge=16, le=512, description="pixels of the shorter side")
    quality: int = Field(70, ge=1, le=95, description="of JPEG")
    limits: PhotoLimits = PhotoLimits()


class Truth(Config):
    """Known positions, with which answers are compared."""

    root: str | None = Field(None, description="root of the table `images`, whose lat and lon are taken as true; null: "
                             "that of the answers")  # fmt: skip
    overlay: OverlayInput = Field(description="the overlay that was ranked: its pixels say which region holds a truth")


class ReportConfig(Config):
    """Configuration of `report_archive`."""

    version: Literal[1] = 1
    answers: AnswersInput
    output: str = Field(
        pattern=r"[^/]\.html$", description="the page: a file on any store; one that exists is replaced"
    )
    title: str = Field("", max_length=200, description="heading of the page; empty: one is made of the ranking's name")
    images: int = Field(10_000, ge=1, le=100_000, description="images in the list at most; of more, a sample by hash")
    detailed: int = Field(300, ge=0, le=5_000, description="images with their regions at most")
    regions: int = Field(50, ge=1, le=1_000, description="regions of an image at most")
    thumbnails: Thumbnails | None = Field(
        None, description="null: no picture gets into the page. Ask for them only if its readers may see them"
    )
    truth: Truth | None = Field(
        None, description="null: answers are compared with nothing, and no position from EXIF gets into the page"
    )
    evaluation: RunId | None = Field(
        None, description="a run of `evaluate` below the same root, or `latest`, whose figures are told; null: none"
    )
    outline: str | None = Field(
        None, description="vector file of land or coasts, longitude and latitude; null: the one inside pyogrio, if any"
    )
    price_per_hour: float | None = Field(None, gt=0, description="of the machines that ranked, in `currency`")
    currency: str = Field("USD", max_length=10)
