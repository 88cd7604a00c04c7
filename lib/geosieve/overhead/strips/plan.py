"""What becomes of a strip: its pixels as they are read, and the UTM grid on which they are written."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from affine import Affine
from pyproj import CRS
from rasterio.errors import CRSError as UnwritableCRS
from rasterio.errors import RasterioError

from geosieve.geo.sphere import normalize_lon
from geosieve.overhead.strips.config import StripFacts, StripSource
from geosieve.rasters.catalog import admitted, validity
from geosieve.rasters.footprint import Misplaced, place
from geosieve.rasters.georeference import PixelGrid, UnusableCrs
from geosieve.rasters.sampling import gdal_text, header_digest, open_raster, stored_state

BY_NUMBER_OF_BANDS = {8: (5, 3, 2), 4: (3, 2, 1), 3: (1, 2, 3), 1: (1, 1, 1)}
"""Red, green and blue of WorldView-2 and -3 (8 bands), of blue-green-red-infrared (4), of RGB, and of grey strips."""

_TYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")
_MOST_PIXELS = 1 << 35
_FARTHEST_DEG = 12.0  # from the central meridian: there a metre of the grid is still 0.98 to 1.03 m on the ground
_EDGE_STEPS = 64


class Refused(Exception):
    """A strip cannot be prepared. Arguments: error class, message."""


@dataclass(frozen=True)
class Raster:
    """A file and the bands of it that are read, with what says whether a pixel is valid."""

    uri: str
    bands: tuple[int, ...]
    grid: PixelGrid
    dtype: str
    nodata: tuple[float | None, ...]  # of each of `bands`
    masked: bool
    block: tuple[int, int]  # rows, columns
    vrt: bool
    header_sha256: str


@dataclass(frozen=True)
class Strip:
    """A strip that can be prepared."""

    strip_id: str
    raster: Raster
    panchromatic: Raster | None
    target: PixelGrid  # in UTM
    epsg: int
    native_resolution_m: float
    footprint: bytes  # WKB
    facts: StripFacts | None

    @property
    def source(self) -> Raster:
        """The raster on whose grid the strip is read: the panchromatic one, if there is one."""
        return self.panchromatic or self.raster

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the strip's values as they are read."""
        return np.dtype(self.source.dtype)


def describe(strip_id: str, uri: str, source: StripSource) -> Strip:
    """Open a strip and plan its grid. Raises `Refused`, or the errors of a store that is down or refuses access.

    Error classes: `not_a_raster`, `no_georeference`, `missing_crs`, `unusable_crs`, `unsupported_type`, `missing_band`,
    `unknown_bands`, `missing_panchromatic`, `outside_utm`, `too_wide`, `too_large`, and those of `footprint.place`.
    """
    raster = _raster(uri, source, source.bands)
    panchromatic = None
    if source.panchromatic is not None:
        partner = partner_of(uri, source)
        if partner is None:
            raise Refused("missing_panchromatic", f"its URI has no {source.panchromatic.replace!r} to be replaced")
        try:
            panchromatic = _raster(partner, source, [1])
        except Refused as refused:
            raise Refused("missing_panchromatic", f"{partner}: {refused.args[1]}") from refused
    grid = (panchromatic or raster).grid
    try:
        _, outline = place(grid.crs_wkt, grid.transform, grid.width, grid.height)
        epsg, target, native = utm_grid(grid, source.resolution_m)
    except Misplaced as misplaced:
        raise Refused(*misplaced.args) from misplaced
    name = uri.rsplit("/", 1)[-1]
    facts = next((facts for facts in source.facts if fnmatch.fnmatch(name, facts.pattern)), None)
    return Strip(strip_id, raster, panchromatic, target, epsg, native, outline.wkb, facts)


def partner_of(uri: str, source: StripSource) -> str | None:
    """The URI of a strip's panchromatic partner; None if it has none by its name."""
    rule = source.panchromatic
    if rule is None or rule.replace not in uri:
        return None
    head, _, tail = uri.rpartition(rule.replace)
    return f"{head}{rule.by}{tail}"


def utm_epsg(lat: float, lon: float) -> int:
    """The WGS 84 / UTM zone of a position, lon in [-180, 180]; zones are six degrees wide everywhere."""
    zone = int((lon + 180.0) // 6.0) % 60 + 1
    return (32600 if lat >= 0 else 32700) + zone


def utm_grid(grid: PixelGrid, resolution_m: float) -> tuple[int, PixelGrid, float]:
    """EPSG code, pixels, and the ground size in metres of a source pixel, in the UTM zone of the centre of `grid`.

    Zones are six degrees wide everywhere, also around Norway and Svalbard. Edges of pixels are multiples of
    `resolution_m`, so that strips of one zone share a grid. Raises `Refused`.
    """
    middle = np.array([0.0, 1.0, 0.0])  # centre, a pixel to the south, a pixel to the east of it in the raster
    row, column = grid.height / 2.0 + middle, grid.width / 2.0 + middle[[0, 2, 1]]
    lat, lon = grid.system.inverse(*grid.coordinates(row, column))
    if not (np.isfinite(lat).all() and np.isfinite(lon).all()):
        raise Refused("off_earth", "its centre lies on no point of the Earth")
    if not -80.0 <= lat[0] <= 84.0:
        raise Refused("outside_utm", f"its centre is at latitude {lat[0]:.3f}; UTM serves 80° south to 84° north")
    epsg = utm_epsg(float(lat[0]), float(normalize_lon(lon[:1])[0]))
    zone = epsg % 100
    wkt = CRS.from_epsg(epsg).to_wkt()
    utm = PixelGrid(wkt, Affine.identity(), 1, 1).system
    x, y = utm.forward(lat, lon)
    native = math.sqrt(abs((x[2] - x[0]) * (y[1] - y[0]) - (x[1] - x[0]) * (y[2] - y[0])))
    lat, lon = edge(grid)
    far = np.abs((lon - (6.0 * zone - 183.0) + 180.0) % 360.0 - 180.0)
    if not (np.isfinite(lat).all() and far.max() <= _FARTHEST_DEG):
        raise Refused("too_wide", f"it reaches {far.max():.1f}° from the middle of UTM zone {zone}; cut it up")
    x, y = utm.forward(lat, lon)
    # A millionth of a pixel is rounding: without it, a strip on this very grid would get another row and column.
    left, bottom = (math.floor(v.min() / resolution_m + 1e-6) for v in (x, y))
    right, top = (math.ceil(v.max() / resolution_m - 1e-6) for v in (x, y))
    width, height = max(1, right - left), max(1, top - bottom)
    if width * height > _MOST_PIXELS:
        raise Refused("too_large", f"{width} × {height} pixels of {resolution_m:g} m; raise strips.resolution_m")
    transform = Affine(resolution_m, 0.0, left * resolution_m, 0.0, -resolution_m, top * resolution_m)
    return epsg, PixelGrid(wkt, transform, width, height), native


def edge(grid: PixelGrid) -> tuple[Any, Any]:
    """lat, lon of points on the outline of a grid's pixels."""
    along = np.linspace(0.0, 1.0, _EDGE_STEPS + 1)
    zero, one = np.zeros_like(along), np.ones_like(along)
    row = np.concatenate([zero, one, along, along]) * grid.height
    column = np.concatenate([along, along, zero, one]) * grid.width
    return grid.system.inverse(*grid.coordinates(row, column))


def _raster(uri: str, source: StripSource, bands: Sequence[int] | None) -> Raster:
    try:
        resolved = admitted(uri, source.vrt_sources)
        stored = [] if resolved else stored_state(uri)
        with open_raster(uri, resolved) as dataset:
            if dataset.transform.is_identity or dataset.transform.is_degenerate:
                raise Refused("no_georeference", "it has no usable geotransform (or ground control points only)")
            if not dataset.crs:
                raise Refused("missing_crs", "it names no CRS")
            chosen = _bands(dataset, bands)
            dtype = dataset.dtypes[chosen[0] - 1]
            if dtype not in _TYPES or len({dataset.dtypes[band - 1] for band in chosen}) > 1:
                raise Refused("unsupported_type", f"pixels of type {', '.join(dataset.dtypes)}")
            rules = [validity(dataset, band, source.nodata) for band in chosen]
            grid = PixelGrid(dataset.crs.to_wkt(), dataset.transform, dataset.width, dataset.height)
            grid.system  # noqa: B018, the CRS is usable
            return Raster(
                uri,
                chosen,
                grid,
                dtype,
                tuple(nodata for _, nodata in rules),
                rules[0][0] != "none",
                dataset.block_shapes[chosen[0] - 1],
                resolved is not None,
                header_digest(dataset, chosen[0], stored),
            )
    except (UnwritableCRS, UnusableCrs) as error:
        raise Refused("unusable_crs", f"its CRS cannot be used: {error}") from error
    except (RasterioError, OSError) as error:
        raise Refused("not_a_raster", f"GDAL cannot open it: {gdal_text(error)}") from error


def _bands(dataset: Any, given: Sequence[int] | None) -> tuple[int, ...]:
    if given is not None:
        if max(given) > dataset.count:
            raise Refused("missing_band", f"it has {dataset.count} bands, not {max(given)}")
        return tuple(given) * (3 // len(given))
    count = sum(meaning.name != "alpha" for meaning in dataset.colorinterp)
    if count not in BY_NUMBER_OF_BANDS:
        raise Refused("unknown_bands", f"which of its {count} bands are red, green and blue? Set strips.bands")
    return BY_NUMBER_OF_BANDS[count]
