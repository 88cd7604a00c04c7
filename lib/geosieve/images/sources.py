"""Configuration of `ingest_images`: where images or lists of coordinates are, and which of their columns is which."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from geosieve.runtime.config import Config


class Columns(Config):
    """The names that a list's own columns have. Names are compared exactly, upper and lower case included."""

    image_id: str
    lat: str
    lon: str
    uri: str | None = None
    captured_at: str | None = None
    author: str | None = None
    sequence: str | None = None
    width: str | None = None
    height: str | None = None
    licence: str | None = None


class Source(Config):
    """What every source has.

    `name` becomes the partition value `source=…`, which every SQL engine must take as it is. `uri` is a file, a
    folder or a glob; for photos, one folder.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")
    uri: str = Field(min_length=1)


class CsvSource(Source):
    """A list of coordinates as UTF-8 CSV with a header line (RFC 4180: quotes are doubled inside quotes)."""

    format: Literal["csv"]
    columns: Columns
    delimiter: str = Field(default=",", min_length=1, max_length=1)


class ParquetSource(Source):
    """A list of coordinates as Parquet."""

    format: Literal["parquet"]
    columns: Columns


class PhotoSource(Source):
    """A folder of image files, searched at every depth; positions and times come from EXIF."""

    format: Literal["photos"]


class IngestConfig(Config):
    """`source`: what to read; `output`: the root below which `images` and `rejects` are written."""

    source: Annotated[CsvSource | ParquetSource | PhotoSource, Field(discriminator="format")]
    output: str = Field(min_length=1)
