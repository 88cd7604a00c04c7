"""Partitions by the values of a map: what their regions cover, by the pixels themselves."""

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
    """A partition by the values of a map: the value of a point's pixel decides.

    units: `stored` or `physical`, with the file's scale and offset.
    """

    reader: MosaicReader
    units: str

    def assign(self, lat: F8, lon: F8, candidates: Candidates) -> I8:
        """As of `Assigner`."""
        values, state = self.reader.values(lat, lon, candidates, self.units)
        return np.where(state != VALID, state, self.regions_of(values))

    def regions_of(self, values: F8) -> I8:
        """Region of each valid value, (n,); UNMAPPED where it has none."""
        raise NotImplementedError


def parts_of_files(files: FileColumns) -> list[tuple[int, int]]:
    """All parts of the map's files, some 64 million pixels each: number of the file and first row."""
    return [(k, first) for k, file in enumerate(files) for first in content.parts(file.height, file.width)]


def area_of_pixels(
    assigner: MapAssigner, index: CandidateIndex, wanted: NDArray[np.bool_], number: int, first_row: int
) -> F8:
    """Area, km², (regions,), that each `wanted` region has in a part of a file, by the file's own pixels.

    A pixel counts where the map takes it, not where a file that is asked before has another value.
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
    """Areas of pixels by their corners, from their first corners; `lon` are the longitudes of their centres."""
    corners = (grid.coordinates(top + down, left + right) for down, right in ((0, 0), (0, 1), (1, 1), (1, 0)))
    at = (grid.system.inverse(x, y) for x, y in corners)
    outline = [np.stack([lon + normalize_lon(x - lon), np.clip(y, -90.0, 90.0)], axis=-1) for y, x in at]
    return plane.areas_km2(shapely.polygons(np.stack(outline, axis=1)))
