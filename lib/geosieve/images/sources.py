"""Configuration of `ingest_images`: where images or lists of coordinates are, and which of their columns is which."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from geosieve.job.publishing import JobConfig
from geosieve.runtime.config import Config


def _as_name(value: Any) -> Any:
    """YAML takes the name 2 for a number."""
    return str(value) if type(value) is int else value


ColumnName = Annotated[str, BeforeValidator(_as_name)]
"""A column's name; its number from 1 in a list without header."""


class Columns(Config):
    """The names that a list's own columns have. Names are compared exactly, upper and lower case included."""

    image_id: ColumnName | None = Field(description="null: the row's number in its file is the id")
    lat: ColumnName
    lon: ColumnName
    uri: ColumnName | None = None
    captured_at: ColumnName | None = None
    author: ColumnName | None = None
    sequence: ColumnName | None = None
    width: ColumnName | None = None
    height: ColumnName | None = None
    licence: ColumnName | None = None


class Source(Config):
    """What every source has.

    `name` becomes the partition value `source=…`, which every SQL engine must take as it is. `uri` is a file, a
    folder or a glob; for photos, one folder.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")
    uri: str = Field(min_length=1)


class ListSource(Source):
    """What every list of coordinates has."""

    columns: Columns
    longitudes: Literal["-180..180", "0..360"] = Field(
        "-180..180", description="0..360: longitudes are counted eastward only; those above 180 lie in the west"
    )


class CsvSource(ListSource):
    """A list of coordinates as CSV (RFC 4180: quotes are doubled inside quotes)."""

    format: Literal["csv"]
    delimiter: str = Field(default=",", min_length=1, max_length=1)
    header: bool = Field(True, description="false: there is no header line, and columns are named by numbers from 1")
    encoding: str = Field("UTF-8", description="the character set by a name that Java knows, e.g. windows-1252, UTF-16")


class ParquetSource(ListSource):
    """A list of coordinates as Parquet."""

    format: Literal["parquet"]


class PhotoSource(Source):
    """A folder of image files, searched at every depth; positions and times come from EXIF."""

    format: Literal["photos"]


class IngestConfig(JobConfig):
    """`source`: what to read; `output`: the root below which `images` and `rejects` are written."""

    source: Annotated[CsvSource | ParquetSource | PhotoSource, Field(discriminator="format")]
