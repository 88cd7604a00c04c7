"""What a worker does with a raster on S3, for a process of its own: GDAL may ask while it holds Python's lock."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from fabricated_rasters import cataloged

from geosieve.rasters.catalog import _Refused, _reject
from geosieve.rasters.sampling import gdal_environment, read_pixels
from geosieve.runtime.errors import GeosieveError, InputError


class Reader:
    """Catalogued files by URI, and their values as a later job reads them."""

    def __init__(self) -> None:
        self.files: dict[str, Any] = {}

    def catalog(self, uri: str, source: dict[str, Any]) -> str:
        """The file's driver, or why it is a reject, or the class and text of the error that ends the job."""
        try:
            self.files[uri] = cataloged(uri, **source).file
        except _Refused as refused:
            with gdal_environment():
                return str(_reject(uri, *refused.args)["message"])
        except GeosieveError as error:
            return f"{type(error).__name__}: {error}"
        return str(self.files[uri].driver)

    def read(self, uri: str) -> tuple[list[float], list[bool]] | str:
        """Values of all pixels in the order of rows and whether they are valid; or the InputError's text."""
        file = self.files[uri]
        row, column = (index.ravel() for index in np.indices((file.height, file.width)))
        try:
            with gdal_environment():
                values, valid = read_pixels(file, row, column)
        except InputError as error:
            return str(error)
        return values.tolist(), valid.tolist()


READER = Reader()


def start(environment: dict[str, str]) -> None:
    """Set up the process where this is called."""
    os.environ.update(environment)


def catalog(uri: str, source: dict[str, Any]) -> str:
    """`Reader.catalog` in the process where this is called."""
    return READER.catalog(uri, source)


def read(uri: str) -> tuple[list[float], list[bool]] | str:
    """`Reader.read` in the process where this is called."""
    return READER.read(uri)
