"""A map made of raster files: the value at a point, whichever file has it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from numpy.typing import NDArray

from geosieve.geo import plane
from geosieve.geo.arrays import F8, I8
from geosieve.geo.codes import NODATA, OUTSIDE
from geosieve.geo.sphere import normalize_lon
from geosieve.partitions.base import Partition
from geosieve.rasters import content
from geosieve.rasters.candidates import CandidateIndex, Candidates
from geosieve.rasters.files import FILE_COLUMNS, RasterFile
from geosieve.rasters.georeference import PixelGrid
from geosieve.rasters.identity import file_facts
from geosieve.rasters.sampling import catalogued, gdal_environment, is_valid, pixel_grid, pixels, read_pixels

VALID = 0

_SHARED = ("crs_wkt", "driver", "mask")  # texts that are the same in many files


class PackedFiles:
    """Files by number, in columns: about 310 bytes each, and each CRS once, however many files share it."""

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
    """Files of one collection in the order in which they are asked: by priority, then by URI.

    Workers are sent `packed`, which `values` needs, and not `files`, whose footprints only the driver needs.
    """

    files: pa.Table
    packed: PackedFiles

    @classmethod
    def of(cls, files: pa.Table) -> Mosaic:
        """The map of these files, a table of CATALOGED_COLUMNS in any order."""
        ordered = files.sort_by([("priority", "ascending"), ("uri", "ascending")])
        for name in _SHARED:
            ordered = ordered.set_column(FILE_COLUMNS.names.index(name), name, ordered[name].dictionary_encode())
        ordered = ordered.combine_chunks()
        return cls(ordered, PackedFiles(ordered))

    def __getstate__(self) -> dict[str, Any]:
        return {"files": self.files.schema.empty_table(), "packed": self.packed}

    def facts(self) -> Iterator[dict[str, Any]]:
        """What identifies the data, in the order that decides between overlapping files."""
        return map(file_facts, self.packed)

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
            for number in np.union1d(self.packed.everywhere, list(candidates.items())).astype(int).tolist():
                file = self.packed[number]
                asked = everywhere if file.is_global else candidates.points_of(number)
                asked = asked[state[asked] != VALID]
                if asked.size == 0:
                    continue
                row, column, inside = pixels(file, lat[asked], lon[asked])
                asked, row, column = asked[inside], row[inside], column[inside]
                found, valid = read_pixels(file, row, column)
                state[asked] = np.where(valid, VALID, NODATA)
                values[asked[valid]] = _in_units(found[valid], file, units)
        return values, state


def _in_units(stored: NDArray[Any], file: RasterFile, units: str) -> F8:
    scale, offset = (file.scale, file.offset) if units == "physical" else (1.0, 0.0)
    return np.asarray(stored.astype(np.float64) * scale + offset)


@runtime_checkable
class Mapped(Partition, Protocol):
    """A partition whose regions are those of the values of a map."""

    @property
    def rasters(self) -> Mosaic:
        """The map."""
        ...

    @property
    def units(self) -> str:
        """`stored` or `physical`: which values decide."""
        ...

    def regions_of(self, values: F8) -> I8:
        """Region of each valid value, (n,); UNMAPPED where it has none."""
        ...


def parts_of_files(partition: Mapped) -> list[tuple[int, int]]:
    """All parts of the map's files, some 64 million pixels each: number of the file and first row."""
    sizes = zip(*(partition.rasters.files[name].to_pylist() for name in ("height", "width")), strict=True)
    return [(k, first) for k, size in enumerate(sizes) for first in content.parts(*size)]


def area_of_pixels(
    partition: Mapped, index: CandidateIndex, wanted: NDArray[np.bool_], number: int, first_row: int
) -> F8:
    """Area, km², (n_regions,), that each `wanted` region has in a part of a file, by the file's own pixels.

    A pixel counts where the map takes it, not where a file that is asked before has another value.
    """
    area = np.zeros(partition.n_regions)
    file = partition.rasters.packed[number]
    grid = pixel_grid(file)
    last_row = min(first_row + content.part_rows(file.width), file.height)
    shape, blocks = (file.height, file.width), (file.block_height, file.block_width)
    with gdal_environment(), catalogued(file) as dataset:
        for _, row_windows in content.windows(shape, blocks, first_row, last_row):
            for window in row_windows:
                stored = dataset.read(file.band, window=window)
                mask = dataset.read_masks(file.band, window=window) != 0 if file.mask != "none" else None
                row, column = np.nonzero(is_valid(stored, file.nodata, mask))
                region = partition.regions_of(_in_units(stored[row, column], file, partition.units))
                kept = np.flatnonzero((region >= 0) & wanted[np.maximum(region, 0)])
                if not kept.size:
                    continue
                top, left = row[kept] + float(window.row_off), column[kept] + float(window.col_off)
                lat, lon = grid.system.inverse(*grid.coordinates(top + 0.5, left + 0.5))
                there = np.flatnonzero(np.isfinite(lat) & np.isfinite(lon))
                lat, lon, region = lat[there], normalize_lon(lon[there]), region[kept[there]]
                taken = np.flatnonzero(partition.assign(lat, lon, index.candidates(lat, lon)) == region)
                km2 = _pixel_areas_km2(grid, top[there[taken]], left[there[taken]], lon[taken])
                area += np.bincount(region[taken], km2, area.size)
    return area


def _pixel_areas_km2(grid: PixelGrid, top: F8, left: F8, lon: F8) -> F8:
    """Areas of pixels by their corners, from their first corners; `lon` are the longitudes of their centres."""
    corners = (grid.coordinates(top + down, left + right) for down, right in ((0, 0), (0, 1), (1, 1), (1, 0)))
    at = (grid.system.inverse(x, y) for x, y in corners)
    outline = [np.stack([lon + normalize_lon(x - lon), np.clip(y, -90.0, 90.0)], axis=-1) for y, x in at]
    return plane.areas_km2(shapely.polygons(np.stack(outline, axis=1)))
