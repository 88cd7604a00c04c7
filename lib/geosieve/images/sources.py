"""Configuration of `ingest_images`: where images or coordinate lists are, and what their columns are called."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from geosieve.images.listed import Match
from geosieve.images.photo_rows import PhotoLimits
from geosieve.job.publishing import JobConfig
from geosieve.runtime.config import Config


def _as_name(value: Any) -> Any:
    """A name as text: YAML reads the name 2 as a number."""
    return str(value) if type(value) is int else value


ColumnName = Annotated[str, BeforeValidator(_as_name)]
"""Name of a column, or its number from 1 in a list without a header."""


class Columns(Config):
    """Names of a list's columns, by our names. They must match exactly, including upper and lower case."""

    image_id: ColumnName | None = Field(description="column of the id; null: the row number within the file is the id")
    lat: ColumnName
    lon: ColumnName
    uri: ColumnName | None = None
    captured_at: ColumnName | None = None
    author: ColumnName | None = None
    sequence: ColumnName | None = None
    width: ColumnName | None = None
    height: ColumnName | None = None
    licence: ColumnName | None = None


class RecordColumns(Columns):
    """Columns of records that may hold the image itself."""

    image: ColumnName | None = Field(None, description="column of the image file's bytes")


class PhotoFiles(Config):
    """How image files are read, wherever they are."""

    fingerprint: bool = Field(
        True, description="read whole files, decode them, and hash their bytes and what they show; false: headers only"
    )
    limits: PhotoLimits = PhotoLimits()


class ListedFiles(PhotoFiles):
    """The image files that a list describes: a folder of files and archives."""

    uri: str = Field(min_length=1)
    match: Match = Field(
        description="what of a file the row's id equals: stem (name without extension), name, or path (its end)"
    )


class Source(Config):
    """Base of all sources.

    `name` becomes the partition value `source=…`, so it has only characters that every SQL engine accepts. `uri` is a
    file, a folder or a glob; for photos it is one folder.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")
    uri: str = Field(min_length=1)


class ListSource(Source):
    """Base of all coordinate lists."""

    columns: Columns
    files: ListedFiles | None = Field(None, description="the image files of the list; without, only the list is read")
    longitudes: Literal["-180..180", "0..360"] = Field(
        "-180..180", description="0..360: longitudes run eastward from 0 to 360; those above 180 become negative"
    )


class CsvSource(ListSource):
    """A coordinate list as CSV (RFC 4180: a quote inside quotes is written twice)."""

    format: Literal["csv"]
    delimiter: str = Field(default=",", min_length=1, max_length=1)
    header: bool = Field(
        True, description="false: the file has no header line; columns are named by their number, from 1"
    )
    encoding: str = Field("UTF-8", description="character set, by a name that Java knows, e.g. windows-1252, UTF-16")


class RecordSource(ListSource, PhotoFiles):
    """Base of lists whose rows may hold the image itself. ValueError if there are `files`, too."""

    columns: RecordColumns

    @model_validator(mode="after")
    def _one_place(self) -> RecordSource:
        if self.files is not None and self.columns.image is not None:
            raise ValueError("an image is in columns.image or in files, not in both")
        return self


class ParquetSource(RecordSource):
    """A coordinate list as Parquet."""

    format: Literal["parquet"]


class MsgpackSource(RecordSource):
    """Shards of msgpack maps that hold the image, as GeoEstimation packs MP-16. ValueError without image or id."""

    format: Literal["msgpack"]

    @model_validator(mode="after")
    def _complete(self) -> MsgpackSource:
        if self.columns.image is None or self.columns.image_id is None:
            raise ValueError("columns: image and image_id are needed in msgpack records")
        return self


class PhotoSource(Source, PhotoFiles):
    """A folder of image files and of archives (zip, tar, compressed tar) of them, searched recursively.

    Positions and times come from EXIF. Archives are read where they lie, and nothing is extracted.
    """

    format: Literal["photos"]


class IngestConfig(JobConfig):
    """Configuration of `ingest_images`: `source` is what to read, `output` the root of `images` and `rejects`."""

    source: Annotated[CsvSource | ParquetSource | MsgpackSource | PhotoSource, Field(discriminator="format")]
