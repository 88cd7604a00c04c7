"""Arrays from one pixel grid to another, with the pixels that are empty."""

from __future__ import annotations

import math

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.io import MemoryFile
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from geosieve.geo.arrays import F8, Array
from geosieve.rasters.georeference import PixelGrid

_NODES = 33  # a side of the lattice of target pixels whose places in the source are computed
_KERNEL_PX = 3  # cubic reaches two pixels beyond, and one is rounding
_ROOM_PX = 24  # where GDAL finds less than it looks for, it takes other kernels, and pixels depend on the window
_FULL = 255
_LONGER = 1 / 0.95  # up to here, GDAL does not widen its kernels
_TOLERANCE_PX = 0.001  # of the places of pixels in the source, which GDAL interpolates between exact ones


def window_under(source: PixelGrid, target: PixelGrid) -> Window | None:
    """The window of `source` that holds all that `target` needs, kernels included; None if there is nothing."""
    x, y, middle = _under(source, target)
    if source.system.turn is not None:  # the turn in which the source lies
        x = x + source.system.turn * np.round((middle - x) / source.system.turn)
    inverse = ~source.transform
    column, row = inverse.a * x + inverse.b * y + inverse.c, inverse.d * x + inverse.e * y + inverse.f
    found = np.isfinite(row) & np.isfinite(column)
    if not found.any():
        return None
    spans = []
    for at, size, pixels in (
        (row[found], source.height, target.height),
        (column[found], source.width, target.width),
    ):
        # Kernels widen where pixels are merged; between the nodes, lines bend by far less than a node's distance.
        margin = _ROOM_PX + _KERNEL_PX * max(1.0, np.ptp(at) / pixels) + np.ptp(at) / (_NODES - 1) ** 2
        first, last = math.floor(max(0.0, at.min() - margin)), math.ceil(min(size, at.max() + margin))
        if first >= last:
            return None
        spans.append((first, last))
    (top, bottom), (left, right) = spans
    return Window(left, top, right - left, bottom - top)


def warp(
    values: Array, valid: NDArray[np.bool_], source: PixelGrid, target: PixelGrid, resampling: str
) -> tuple[Array, NDArray[np.bool_]]:
    """Resample `values` (bands, rows, columns), 8-bit or float64, of a source to a target grid, by GDAL.

    Empty pixels have no weight. A target pixel is valid if the source pixel in which its centre lies is.
    """
    done = np.zeros((len(values) + 1, target.height, target.width), values.dtype)
    merges = _merges(source, target)
    for transform in _placements(source, target):
        out = _resampled(values, valid, source.crs_wkt, transform, target, Resampling[resampling], merges)
        done = np.where(done[-1] != 0, done, out)
    return done[:-1], done[-1] != 0


def _resampled(
    values: Array,
    valid: NDArray[np.bool_],
    crs_wkt: str,
    transform: Affine,
    target: PixelGrid,
    resampling: Resampling,
    merges: bool,
) -> Array:
    """The values and, last, their alpha on the target grid.

    By `WarpedVRT`, because `rasterio.warp.reproject` always approximates places by up to an eighth of a pixel, whatever
    tolerance it is given. An eighth of a pixel at an edge of 90 greys is 11 of them.

    Where no pixels merge, GDAL is told so. It guesses the width of its kernels from the sizes of the two grids, and a
    turned source takes a larger one, so that pixels would blur, those of each tile in another way.
    """
    bands, height, width = values.shape
    kernels = {} if merges else {"XSCALE": "1", "YSCALE": "1"}
    # An alpha band has to have the type of the values. Without it, GDAL takes a third of the time; where it guesses,
    # it guesses better with it.
    alpha = [] if valid.all() and not merges else [np.where(valid, _FULL, 0).astype(values.dtype)]
    has_alpha = {"src_alpha": bands + 1, "dst_alpha": bands + 1, "SRC_ALPHA_MAX": str(_FULL)}
    profile = {"height": height, "width": width, "dtype": values.dtype, "interleave": "band"}
    with MemoryFile() as file:
        with file.open(driver="GTiff", transform=transform, count=bands + len(alpha), **profile) as layers:
            for number, layer in enumerate((*values, *alpha), 1):
                layers.write(layer, number)
        with (
            file.open() as layers,
            WarpedVRT(
                layers,
                src_crs=crs_wkt,  # GeoTIFF cannot hold every CRS
                crs=target.crs_wkt,
                transform=target.transform,
                width=target.width,
                height=target.height,
                resampling=resampling,
                tolerance=_TOLERANCE_PX,
                DST_ALPHA_MAX=str(_FULL),
                **(has_alpha if alpha else {"add_alpha": True}),
                **kernels,
            ) as picture,
        ):
            return np.asarray(picture.read())


def _merges(source: PixelGrid, target: PixelGrid) -> bool:
    """Whether a pixel of the target is longer than one of the source's, along its rows or columns."""
    x, y, _ = _under(source, target)
    inverse = ~source.transform
    with np.errstate(invalid="ignore"):
        for of_x, of_y in ((inverse.a, inverse.b), (inverse.d, inverse.e)):
            at = (of_x * x + of_y * y).reshape(_NODES, _NODES) * (_NODES - 1)
            steps = np.hypot(np.diff(at, axis=0)[:, 1:] / target.height, np.diff(at, axis=1)[1:] / target.width)
            if np.median(steps[np.isfinite(steps)]) > _LONGER:
                return True
    return False


def _placements(source: PixelGrid, target: PixelGrid) -> list[Affine]:
    """The source's transform, moved by the whole turns at which PROJ gives points of the target.

    There are two where the target crosses the seam of the source's CRS, at ±180 in most.
    """
    turn = source.system.turn
    if turn is None:
        return [source.transform]
    x, _, middle = _under(source, target)
    turns = np.unique(np.round((x[np.isfinite(x)] - middle) / turn))
    return [Affine.translation(n * turn, 0.0) * source.transform for n in turns]


def _under(source: PixelGrid, target: PixelGrid) -> tuple[F8, F8, float]:
    """x and y in the source's CRS of a lattice of points of the target, and x of the source's middle."""
    row, column = (np.linspace(0.0, n, _NODES) for n in (target.height, target.width))
    rows, columns = (v.ravel() for v in np.meshgrid(row, column, indexing="ij"))
    x, y = source.system.forward(*target.system.inverse(*target.coordinates(rows, columns)))
    middle = source.coordinates(np.array([source.height / 2]), np.array([source.width / 2]))[0]
    return x, y, float(middle[0])
