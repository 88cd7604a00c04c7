"""Partitions by the values of a map: the region of a point, and the areas of regions summed over pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from geosieve.geo import plane
from geosieve.geo.arrays import F8, I8
from geosieve.geo.sphere import normalize_lon
from geosieve.rasters import content
from geosieve.rasters.candidates import CandidateIndex, Candidates
from geosieve.rasters.georeference import PixelGrid
from geosieve.rasters.mosaic import VALID, FileColumns, MosaicReader, in_units
from geosieve.rasters.sampling import catalogued, gdal_environment, is_valid, pixel_grid


@dataclass(frozen=True)
class MapAssigner:
    """Base class of an `Assigner` by the values of a map: the value of the point's pixel determines the region.

    units: `stored`, or `physical`, which applies the file's scale and offset.
    """

    reader: MosaicReader
    units: str

    def assign(self, lat: F8, lon: F8, candidates: Candidates) -> I8:
        """Return the region index of each point, OUTSIDE, NODATA or UNMAPPED. See `Assigner.assign`."""
        values, state = self.reader.values(lat, lon, candidates, self.units)
        return np.where(state != VALID, state, self.regions_of(values))

    def regions_of(self, values: F8) -> I8:
        """Return the region of each valid value, shape (n,), or UNMAPPED if it belongs to none."""
        raise NotImplementedError


def parts_of_files(files: FileColumns) -> list[tuple[int, int]]:
    """Return the parts of all files as pairs of file number and first row. A part has about 64 million pixels."""
    return [(k, first) for k, file in enumerate(files) for first in content.parts(file.height, file.width)]


def area_of_pixels(
    assigner: MapAssigner, index: CandidateIndex, wanted: NDArray[np.bool_], number: int, first_row: int
) -> F8:
    """Return the area, km², shape (regions,), of each `wanted` region in one part of a file, summed over its pixels.

    index: candidate index of the map's files.
    wanted: boolean mask, shape (regions,); other regions get 0.
    number, first_row: the part, as from `parts_of_files`.

    A pixel counts if the map has its region at the pixel's centre. Where files overlap, another file may have
    precedence and a different value there; the pixel is then left out.
    """
    area = np.zeros(wanted.size)
    file = assigner.reader.files[number]
    grid = pixel_grid(file)
    last_row = min(first_row + content.part_rows(file.width), file.height)
    with gdal_environment(), catalogued(file) as dataset:
        for _, row_windows in content.windows(dataset, file.band, first_row, last_row):
            for window in row_windows:
                stored = dataset.read(file.band, window=window)
                mask = dataset.read_masks(file.band, window=window) != 0 if file.mask != "none" else None
                row, column = np.nonzero(is_valid(stored, file.nodata, mask))
                region = assigner.regions_of(in_units(stored[row, column], file, assigner.units))
                kept = np.flatnonzero((region >= 0) & wanted[np.maximum(region, 0)])
                if not kept.size:
                    continue
                top, left = row[kept] + float(window.row_off), column[kept] + float(window.col_off)
                lat, lon = grid.system.inverse(*grid.coordinates(top + 0.5, left + 0.5))
                there = np.flatnonzero(np.isfinite(lat) & np.isfinite(lon))
                lat, lon, region = lat[there], normalize_lon(lon[there]), region[kept[there]]
                taken = np.flatnonzero(assigner.assign(lat, lon, index.candidates(lat, lon)) == region)
                km2 = _pixel_areas_km2(grid, top[there[taken]], left[there[taken]], lon[taken])
                area += np.bincount(region[taken], km2, area.size)
    return area


def _pixel_areas_km2(grid: PixelGrid, top: F8, left: F8, lon: F8) -> F8:
    """Return the areas, km², shape (n,), of pixels as polygons of their four corners.

    top, left: row and column of the pixel's first corner. lon: longitude of its centre, degrees.
    """
    corners = (grid.coordinates(top + down, left + right) for down, right in ((0, 0), (0, 1), (1, 1), (1, 0)))
    at = (grid.system.inverse(x, y) for x, y in corners)
    outline = [np.stack([lon + normalize_lon(x - lon), np.clip(y, -90.0, 90.0)], axis=-1) for y, x in at]
    return plane.areas_km2(shapely.polygons(np.stack(outline, axis=1)))
