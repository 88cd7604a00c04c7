"""A map made of raster files: the value at a point, whichever file has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geosieve.partitions.base import NODATA, OUTSIDE, CatalogedFile
from geosieve.partitions.nearby import Nearby
from geosieve.rasters.identity import file_facts
from geosieve.rasters.sampling import gdal_environment, pixels, read_pixels

F8 = NDArray[np.float64]
I8 = NDArray[np.int64]

VALID = 0


@dataclass(frozen=True)
class RasterMap:
    """Files of one collection in the order in which they are asked: by priority, then by URI."""

    files: tuple[CatalogedFile, ...]

    @classmethod
    def of(cls, files: list[CatalogedFile]) -> RasterMap:
        return cls(tuple(sorted(files, key=lambda f: (f.file.priority, f.file.uri))))

    def facts(self) -> list[dict[str, Any]]:
        """What identifies the data, in the order that decides between overlapping files."""
        return [file_facts(f.file) for f in self.files]

    def outlines(self) -> dict[int, bytes]:
        """Footprints by the file's number; a file that covers the Earth needs none."""
        return {i: f.footprint for i, f in enumerate(self.files) if not f.file.is_global}

    def values(self, lat: F8, lon: F8, nearby: Nearby) -> tuple[F8, I8]:
        """Value of each point's pixel and its state: VALID, NODATA (some file covers it) or OUTSIDE.

        The first file with a valid value wins. Values are float64: every pixel type up to 32 bits fits exactly.
        """
        values = np.full(lat.size, np.nan)
        state = np.full(lat.size, OUTSIDE, dtype=np.int64)
        everywhere = np.arange(lat.size)
        with gdal_environment():
            for number, cataloged in enumerate(self.files):
                file = cataloged.file
                asked = everywhere if file.is_global else nearby.points_near(number)
                asked = asked[state[asked] != VALID]
                if asked.size == 0:
                    continue
                row, column, inside = pixels(file, lat[asked], lon[asked])
                asked, row, column = asked[inside], row[inside], column[inside]
                found, valid = read_pixels(file, row, column)
                state[asked] = np.where(valid, VALID, NODATA)
                values[asked[valid]] = found[valid]
        return values, state
