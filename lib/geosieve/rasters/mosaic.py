"""A map made of raster files: the value at a point, whichever file has it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from geosieve.geo.arrays import F8, I8
from geosieve.geo.codes import NODATA, OUTSIDE
from geosieve.rasters.candidates import Candidates
from geosieve.rasters.files import FILE_COLUMNS, RasterFile
from geosieve.rasters.identity import file_facts
from geosieve.rasters.sampling import gdal_environment, pixels, read_pixels

VALID = 0

_SHARED = ("crs_wkt", "driver", "mask")  # texts that are the same in many files


class FileColumns:
    """Files by number, stored in columns: about 310 bytes per file. Files with the same CRS share its text."""

    def __init__(self, files: pa.Table) -> None:
        self._columns = files.select(FILE_COLUMNS.names)
        self.everywhere = np.flatnonzero(files["is_global"].to_numpy())
        """Numbers of the files that cover the Earth, ascending."""

    def __len__(self) -> int:
        return int(self._columns.num_rows)

    def __getitem__(self, number: int) -> RasterFile:
        return _file({name: self._columns[name][number].as_py() for name in self._columns.column_names})

    def __iter__(self) -> Iterator[RasterFile]:
        for some in self._columns.to_batches(max_chunksize=1_000):
            yield from map(_file, some.to_pylist())


def _file(facts: dict[str, Any]) -> RasterFile:
    return RasterFile(**{**facts, "transform": tuple(facts["transform"])})


@dataclass(frozen=True)
class Mosaic:
    """Files of one collection, sorted by priority, then by URI. The first valid file in this order gives the value.

    It stays on the driver, because it includes the footprints; workers receive only `reader`.
    """

    files: pa.Table
    reader: MosaicReader

    @classmethod
    def of(cls, files: pa.Table) -> Mosaic:
        """The map of these files, a table of CATALOGED_COLUMNS in any order."""
        ordered = files.sort_by([("priority", "ascending"), ("uri", "ascending")])
        for name in _SHARED:
            ordered = ordered.set_column(FILE_COLUMNS.names.index(name), name, ordered[name].dictionary_encode())
        ordered = ordered.combine_chunks()
        return cls(ordered, MosaicReader(FileColumns(ordered)))

    def facts(self) -> Iterator[dict[str, Any]]:
        """What identifies the data, in the order that decides between overlapping files."""
        return map(file_facts, self.reader.files)

    def scalings(self) -> F8:
        """Scale and offset of each file, (files, 2)."""
        return np.column_stack([self.files[name].to_numpy() for name in ("scale", "offset")])

    def nodata(self) -> set[float | None]:
        """The values that stand for no data in files; None if a file has none, or a mask instead."""
        declared = pc.if_else(pc.equal(self.files["mask"], "none"), self.files["nodata"], None)
        return set(declared.unique().to_pylist())

    def statistics(self) -> tuple[float, float] | None:
        """The least positive value and the greatest value of all files; None where the catalogue does not know them."""
        least, greatest = pc.min(self.files["positive_min"]).as_py(), pc.max(self.files["value_max"]).as_py()
        return None if least is None or self.files["value_max"].null_count else (least, greatest)

    def outlines(self) -> dict[int, bytes]:
        """Footprints by the file's number; a file that covers the Earth needs none."""
        near = np.flatnonzero(~self.files["is_global"].to_numpy())
        return dict(zip(near.tolist(), self.files["footprint"].take(near).to_pylist(), strict=True))


@dataclass(frozen=True)
class MosaicReader:
    """Reads values at points from the files, in the order of `Mosaic`."""

    files: FileColumns

    def values(self, lat: F8, lon: F8, candidates: Candidates, units: str = "stored") -> tuple[F8, I8]:
        """Value of each point's pixel and its state: VALID, NODATA (some file covers it) or OUTSIDE.

        The first file with a valid value wins. units: `stored`, or `physical`, with the file's scale and offset. Values
        are float64: every pixel type up to 32 bits fits exactly.
        """
        values = np.full(lat.size, np.nan)
        state = np.full(lat.size, OUTSIDE, dtype=np.int64)
        everywhere = np.arange(lat.size)
        with gdal_environment():
            # Only files near a point are looked at, however many there are.
            for number in np.union1d(self.files.everywhere, list(candidates.items())).astype(int).tolist():
                file = self.files[number]
                asked = everywhere if file.is_global else candidates.points_of(number)
                asked = asked[state[asked] != VALID]
                if asked.size == 0:
                    continue
                row, column, inside = pixels(file, lat[asked], lon[asked])
                asked, row, column = asked[inside], row[inside], column[inside]
                found, valid = read_pixels(file, row, column)
                state[asked] = np.where(valid, VALID, NODATA)
                values[asked[valid]] = in_units(found[valid], file, units)
        return values, state


def in_units(stored: NDArray[Any], file: RasterFile, units: str) -> F8:
    """Stored values as float64; with units `physical`, with the file's scale and offset."""
    scale, offset = (file.scale, file.offset) if units == "physical" else (1.0, 0.0)
    return np.asarray(stored.astype(np.float64) * scale + offset)
