"""A map made of raster files: the value at a point, whichever file has it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from geosieve.partitions.base import NODATA, OUTSIDE, CatalogedFile
from geosieve.partitions.nearby import Nearby
from geosieve.rasters.identity import file_facts
from geosieve.rasters.sampling import RasterFile, gdal_environment, pixels, read_pixels

F8 = NDArray[np.float64]
I8 = NDArray[np.int64]

VALID = 0


class PackedFiles:
    """Files by number, in columns: about 300 bytes each, and each CRS once, however many files share it."""

    def __init__(self, files: Sequence[RasterFile]) -> None:
        names = [field.name for field in fields(RasterFile)]
        columns = (pa.array([getattr(file, name) for file in files]) for name in names)
        encoded = [column.dictionary_encode() if pa.types.is_string(column.type) else column for column in columns]
        self._columns = pa.table(encoded, names=names)
        self.everywhere = np.flatnonzero([file.is_global for file in files])
        """Numbers of the files that cover the Earth, ascending."""

    def __len__(self) -> int:
        return int(self._columns.num_rows)

    def __getitem__(self, number: int) -> RasterFile:
        facts: dict[str, Any] = {name: self._columns[name][number].as_py() for name in self._columns.column_names}
        return RasterFile(**{**facts, "transform": tuple(facts["transform"])})


@dataclass(frozen=True)
class RasterMap:
    """Files of one collection in the order in which they are asked: by priority, then by URI.

    Workers are sent `packed`, which `values` needs, and not `files`, whose footprints only the driver needs.
    """

    files: tuple[CatalogedFile, ...]
    packed: PackedFiles

    @classmethod
    def of(cls, files: list[CatalogedFile]) -> RasterMap:
        ordered = tuple(sorted(files, key=lambda f: (f.file.priority, f.file.uri)))
        return cls(ordered, PackedFiles([f.file for f in ordered]))

    def __getstate__(self) -> dict[str, Any]:
        return {"files": (), "packed": self.packed}

    def facts(self) -> list[dict[str, Any]]:
        """What identifies the data, in the order that decides between overlapping files."""
        return [file_facts(f.file) for f in self.files]

    def scalings(self) -> list[tuple[float, float]]:
        """Scale and offset of each file."""
        return [(f.file.scale, f.file.offset) for f in self.files]

    def outlines(self) -> dict[int, bytes]:
        """Footprints by the file's number; a file that covers the Earth needs none."""
        return {i: f.footprint for i, f in enumerate(self.files) if not f.file.is_global}

    def values(self, lat: F8, lon: F8, nearby: Nearby, units: str = "stored") -> tuple[F8, I8]:
        """Value of each point's pixel and its state: VALID, NODATA (some file covers it) or OUTSIDE.

        The first file with a valid value wins. units: `stored`, or `physical`, with the file's scale and offset. Values
        are float64: every pixel type up to 32 bits fits exactly.
        """
        values = np.full(lat.size, np.nan)
        state = np.full(lat.size, OUTSIDE, dtype=np.int64)
        everywhere = np.arange(lat.size)
        with gdal_environment():
            # Only files near a point are looked at, however many there are.
            for number in np.union1d(self.packed.everywhere, list(nearby.items())).astype(int).tolist():
                file = self.packed[number]
                asked = everywhere if file.is_global else nearby.points_near(number)
                asked = asked[state[asked] != VALID]
                if asked.size == 0:
                    continue
                row, column, inside = pixels(file, lat[asked], lon[asked])
                asked, row, column = asked[inside], row[inside], column[inside]
                found, valid = read_pixels(file, row, column)
                state[asked] = np.where(valid, VALID, NODATA)
                scale, offset = (file.scale, file.offset) if units == "physical" else (1.0, 0.0)
                values[asked[valid]] = found[valid].astype(np.float64) * scale + offset
        return values, state
