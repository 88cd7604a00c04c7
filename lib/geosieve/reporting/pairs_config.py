"""Configuration of `report_pairs`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from geosieve.geo.s2 import MAX_LEVEL
from geosieve.images.photo_rows import PhotoLimits
from geosieve.overhead.pairs.read import PairsInput
from geosieve.runtime.config import Config


class ReportPairsConfig(Config):
    """Configuration of `report_pairs`."""

    version: Literal[1] = 1
    pairs: PairsInput
    output: str = Field(
        pattern=r"[^/]\.html$", description="the page: a file on any store; one that exists is replaced"
    )
    title: str = Field("", max_length=200, description="heading of the page; empty: one is made of the set's name")
    note: str = Field("", max_length=1000, description="a sentence below the heading, e.g. where the data come from")
    areas: int = Field(12, ge=1, le=200, description="areas with a map of their own; the largest")
    places: int = Field(15, ge=1, le=200, description="most photographed places that are listed")
    place_level: int = Field(15, ge=4, le=MAX_LEVEL, description="a place is an S2 cell of this level; 15: some 280 m")
    least_authors: int = Field(
        3, ge=1, description="only places that so many authors photographed are listed: those of one may be a home"
    )
    samples: int = Field(
        0, ge=0, le=500, description="pairs that are shown as pictures; ask for them only if the readers may see them"
    )
    side: int = Field(280, ge=32, le=1024, description="pixels of the longer side of a picture in the page")
    quality: int = Field(75, ge=1, le=95, description="of JPEG")
    limits: PhotoLimits = PhotoLimits()
