"""What rasterio does not tell of files by GDAL's names: their first bytes, versions, and what lies beside them."""

from __future__ import annotations

import ctypes
import os
from functools import cache

import rasterio._base
from rasterio.errors import RasterioIOError

from geosieve.rasters.paths import uri_of
from geosieve.runtime import store
from geosieve.runtime.errors import InputError

_VALUES = (".msk", ".MSK", ".aux.xml")


@cache
def _gdal() -> ctypes.CDLL:
    """The GDAL that rasterio is linked with: a symbol is looked up in a library and in those that it needs."""
    gdal = ctypes.CDLL(rasterio._base.__file__)
    text = ctypes.c_char_p
    gdal.VSIGetFileMetadata.restype = ctypes.POINTER(text)
    gdal.VSIGetFileMetadata.argtypes = (text, text, ctypes.c_void_p)
    gdal.CSLDestroy.argtypes = (ctypes.POINTER(text),)
    return gdal


def read(path: str, most: int) -> bytes:
    """The first `most` bytes of a file. RasterioIOError or OSError if it cannot be opened; else as `store.read`.

    On S3 not through GDAL: its error does not tell a missing file from a store that is down.
    """
    if not path.startswith("/vsi"):
        with open(path, "rb") as local:
            return local.read(most)
    try:
        return store.read(uri_of(path), most)
    except InputError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise RasterioIOError(f"{path}: there is no such file") from error
        raise


def state(path: str) -> list[int | str]:
    """Values that change when a file is rewritten: size and time of the file and of its mask; on S3 the ETag.

    On S3 this takes one request. It also drops older content from GDAL's cache, and GDAL then opens the file without
    another request. Empty for a missing local file; RasterioIOError if the store returns no version.
    """
    if not path.startswith("/vsi"):
        found = [os.stat(name) for name in (path, f"{path}.msk", f"{path}.MSK") if os.path.isfile(name)]
        return [number for status in found for number in (status.st_size, status.st_mtime_ns)]
    headers = _headers(path)
    for name in ("etag", "last-modified"):
        if name in headers:
            return [f"{name}: {headers[name]}"]
    raise RasterioIOError(f"{path}: its store does not tell which version it has")


def exists(path: str) -> bool:
    """Whether there is a file on S3, by one request."""
    return "etag" in _headers(path)


def sidecars(name: str) -> list[str]:
    """Names beside a raster under which GDAL looks for a mask, metadata, a header, a CRS and a world file."""
    stem, _, extension = name.rpartition(".")
    if not stem or "/" in extension:
        return [f"{name}{end}" for end in (*_VALUES, ".hdr", ".wld")]
    world = (f"{extension[0]}{extension[-1]}w", f"{extension}w", "wld") if extension else ("wld",)
    return [
        *(f"{name}{end}" for end in (*_VALUES, ".hdr")),
        *(f"{stem}.{end}" for end in ("aux", "hdr", "prj", *world)),
    ]


def only_georeferences(sidecar: str) -> bool:
    """Whether a sidecar file holds georeferencing only, so that a georeferenced raster does not need it."""
    return not sidecar.endswith((*_VALUES, ".aux"))


def _headers(path: str) -> dict[str, str]:
    """HTTP headers that the store returns for a file, with names in lower case; empty if the request fails."""
    gdal = _gdal()
    listed = gdal.VSIGetFileMetadata(os.fsencode(path), b"HEADERS", None)
    if not listed:
        return {}
    found = {}
    for line in listed:
        if line is None:  # the end of a list in C
            break
        name, _, value = line.decode(errors="replace").partition("=")
        found[name.lower()] = value.strip()
    gdal.CSLDestroy(listed)
    return found
