"""Tiles of a strip's picture, which tasks make independently, and the cloud-optimised GeoTIFF that they become."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader, MemoryFile
from rasterio.windows import Window
from rio_cogeo.cogeo import cog_validate

from geosieve.overhead.strips.levels import greys
from geosieve.overhead.strips.plan import Strip
from geosieve.overhead.strips.reader import Reader, part_of
from geosieve.overhead.strips.warp import warp, window_under
from geosieve.rasters.paths import gdal_path
from geosieve.rasters.sampling import gdal_text, store_failures
from geosieve.runtime import store
from geosieve.runtime.errors import IntegrityError

_SIDE_PX = 2048
_BLOCK_PX = 512
_CREATION = {
    "deflate": {"COMPRESS": "DEFLATE", "PREDICTOR": "YES"},
    "zstd": {"COMPRESS": "ZSTD", "PREDICTOR": "YES"},
    "jpeg": {"COMPRESS": "JPEG", "QUALITY": "90"},
}
_MOSAIC = {"GDAL_MAX_DATASET_POOL_SIZE": 32, "VRT_NUM_THREADS": 1}
"""GDAL keeps 450 tiles open by default, for each of its threads, and each tile holds memory. A row has 32 or fewer in a
strip of up to 65,536 pixels; of a wider one, tiles are opened again."""

Levels = Sequence[tuple[float, float]]
"""Black and white of red, green and blue."""


def tile_side(strip: Strip) -> int:
    """Pixels of a tile's side: a power of two for which the pixels that it needs of the source fit into memory."""
    side = _SIDE_PX
    while side > 64 and side * strip.target.transform.a > 2 * _SIDE_PX * strip.native_resolution_m:
        side //= 2
    return side


def tile_windows(strip: Strip) -> list[Window]:
    """The windows of the target grid that are its tiles, in rows from the top."""
    side, width, height = tile_side(strip), strip.target.width, strip.target.height
    return [
        Window(left, top, min(side, width - left), min(side, height - top))
        for top in range(0, height, side)
        for left in range(0, width, side)
    ]


def picture(reader: Reader, strip: Strip, levels: Levels, window: Window, resampling: str) -> NDArray[np.uint8]:
    """Red, green, blue and alpha (0 or 255) of a window of the target grid, (4, rows, columns).

    Values become greys before they are resampled, as `gdal_translate` and `gdalwarp` do one after the other. Empty
    pixels are 0. Raises as `FileReader.read`.
    """
    target = part_of(strip.target, window)
    out = np.zeros((4, target.height, target.width), np.uint8)
    under = window_under(reader.grid, target)
    if under is None:
        return out
    pixels = reader.read(under)
    valid = pixels.known.any(axis=0)
    if not valid.any():
        return out
    colours = np.stack([greys(band, *pair) for band, pair in zip(pixels.values, levels, strict=True)])
    colours[~pixels.known] = 0
    colours, seen = warp(colours, valid, part_of(reader.grid, under), target, resampling)
    out[:3], out[3] = np.where(seen, colours, 0), np.where(seen, 255, 0)
    return out


def tile_name(window: Window) -> str:
    """The name of a tile's file."""
    return f"{window.row_off:07d}-{window.col_off:07d}.tif"


def tile_bytes(pixels: NDArray[np.uint8]) -> bytes:
    """A tile as the content of a GeoTIFF, compressed for a short life."""
    count, height, width = pixels.shape
    profile = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": "uint8"}
    with MemoryFile() as file:
        with file.open(**profile, tiled=True, blockxsize=256, blockysize=256, compress="zstd", zstd_level=1) as tile:
            tile.write(pixels)
        return bytes(file.getbuffer())


@dataclass(frozen=True)
class Cog:
    """A cloud-optimised GeoTIFF that was written."""

    uri: str
    size: int
    sha256: str


def assemble(strip: Strip, tiles: Sequence[Window], folder: str, uri: str, compression: str) -> Cog:
    """Make the cloud-optimised GeoTIFF of a strip from its tiles, which lie in `folder`; gaps are empty.

    It is written on the local disk block by block, checked, and then copied to `uri` as a whole. IntegrityError if the
    file is not what it should be; else as `store_failures` and `store.upload`.
    """
    with TemporaryDirectory(prefix="geosieve-strip-") as scratch:
        local = os.path.join(scratch, "strip.tif")
        try:
            with (
                store_failures(folder),
                rasterio.Env(**_MOSAIC),
                DatasetReader(_mosaic(strip, tiles, folder), driver=["VRT"]) as mosaic,
            ):
                rasterio.shutil.copy(
                    mosaic,
                    local,
                    driver="COG",
                    BLOCKSIZE=str(_BLOCK_PX),
                    BIGTIFF="IF_SAFER",
                    OVERVIEW_RESAMPLING="AVERAGE",
                    NUM_THREADS="ALL_CPUS",
                    **_CREATION[compression],
                )
        except RasterioError as error:
            raise IntegrityError(f"the tiles cannot be put together: {gdal_text(error)}", where=uri) from error
        _check(local, strip, uri)
        with open(local, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        store.upload(Path(local), uri)
        return Cog(uri, os.path.getsize(local), digest)


def _check(local: str, strip: Strip, uri: str) -> None:
    valid, faults, _ = cog_validate(local, quiet=True)
    with rasterio.open(local) as written:
        found: tuple[Any, ...] = (written.width, written.height, written.count, written.crs.to_epsg())
    wanted = (strip.target.width, strip.target.height, 3, strip.epsg)
    if not valid or found != wanted:
        raise IntegrityError(f"the file is no such GeoTIFF: {faults or (found, wanted)}", where=uri)


def _mosaic(strip: Strip, tiles: Sequence[Window], folder: str) -> str:
    """A VRT of the tiles: red, green, blue, and a mask from their alpha."""
    grid = strip.target
    transform = ", ".join(repr(v) for v in grid.transform.to_gdal())
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{band}"><ColorInterp>{name}</ColorInterp>'
        f"{_sources(tiles, folder, band)}</VRTRasterBand>"
        for band, name in enumerate(("Red", "Green", "Blue"), 1)
    )
    return (
        f'<VRTDataset rasterXSize="{grid.width}" rasterYSize="{grid.height}"><SRS>EPSG:{strip.epsg}</SRS>'
        f"<GeoTransform>{transform}</GeoTransform>{bands}"
        f'<MaskBand><VRTRasterBand dataType="Byte">{_sources(tiles, folder, 4)}</VRTRasterBand></MaskBand></VRTDataset>'
    )


def _sources(tiles: Sequence[Window], folder: str, band: int) -> str:
    return "".join(
        f'<SimpleSource><SourceFilename relativeToVRT="0">{escape(gdal_path(f"{folder}/{tile_name(tile)}"))}'
        f"</SourceFilename><SourceBand>{band}</SourceBand>"
        f'<SourceProperties RasterXSize="{tile.width}" RasterYSize="{tile.height}" DataType="Byte" BlockXSize="256" '
        f'BlockYSize="256"/><SrcRect xOff="0" yOff="0" xSize="{tile.width}" ySize="{tile.height}"/>'
        f'<DstRect xOff="{tile.col_off}" yOff="{tile.row_off}" xSize="{tile.width}" ySize="{tile.height}"/>'
        "</SimpleSource>"
        for tile in tiles
    )
