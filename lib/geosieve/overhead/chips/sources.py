"""The rasters that chips are cut from: prepared strips and catalogued files, the preferred ones first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import numpy as np
from affine import Affine
from pyproj import CRS
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from geosieve.geo.sphere import haversine_km
from geosieve.overhead.chips.config import Collection, RasterInput
from geosieve.rasters.files import RasterFile
from geosieve.rasters.georeference import PixelGrid
from geosieve.rasters.read import read_catalog
from geosieve.runtime.errors import InputError
from geosieve.runtime.names import did_you_mean
from geosieve.tables.read import committed_runs, read_runs, select_runs
from geosieve.tables.schemas import STRIPS

_COG_BLOCK = (512, 512)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class ChipRaster:
    """A raster that chips are cut from."""

    source: str  # of strips, or the collection
    uri: str
    strip_id: str | None
    grid: PixelGrid
    epsg: int | None  # of its CRS, if that is WGS 84 / UTM
    block: tuple[int, int]  # rows, columns
    footprint: bytes  # WKB
    captured_at: datetime | None
    off_nadir_deg: float | None
    ground_m: float  # size of a pixel on the ground; of a strip, before it was prepared
    priority: int
    size: int | None  # bytes of a prepared strip
    file: RasterFile | None  # of a catalogued raster
    bands: tuple[int, ...] | None
    ranges: tuple[tuple[float, float], ...] | None

    @property
    def preference(self) -> tuple[Any, ...]:
        """The least is preferred: the latest, seen from the steepest, the finest; what is not known comes last."""
        taken = self.captured_at
        return (
            (taken is None, -taken.timestamp() if taken else 0.0),
            (self.off_nadir_deg is None, self.off_nadir_deg or 0.0),
            self.ground_m,
            self.priority,
            self.uri,
        )


def find_rasters(spark: SparkSession, wanted: RasterInput) -> list[ChipRaster]:
    """All rasters that chips may be cut from, the preferred ones first.

    InputError names what there is if a source of strips or a collection is not.
    """
    found = _strips(spark, wanted) if wanted.strips else []
    for collection in wanted.collections:
        found += _catalogued(spark, wanted.root, collection)
    return sorted(found, key=lambda raster: raster.preference)


def _strips(spark: SparkSession, wanted: RasterInput) -> list[ChipRaster]:
    every = committed_runs(spark, wanted.root, STRIPS)
    where = f"{wanted.root}/{STRIPS.name}"
    known = sorted({run.values["source"] for run in every})
    for name in wanted.strips:
        if name not in known:
            raise InputError(
                f"no strips of source {name!r}; there are {', '.join(known) or 'none'}",
                where=where,
                hint=did_you_mean(name, known) or "run prepare_strips for it first",
            )
    runs = select_runs([run for run in every if run.values["source"] in wanted.strips], wanted.strips_run, where)
    # As microseconds, a time does not depend on the driver's time zone.
    rows = read_runs(spark, wanted.root, STRIPS, runs).withColumn("captured_at", F.unix_micros("captured_at"))
    return [_strip(row.asDict(recursive=True)) for row in rows.collect()]


def _strip(row: dict[str, Any]) -> ChipRaster:
    transform = Affine(*(row["transform"][name] for name in "abcdef"))
    taken = row["captured_at"]
    return ChipRaster(
        source=row["source"],
        uri=row["uri"],
        strip_id=row["strip_id"],
        grid=PixelGrid(utm_wkt(row["epsg"]), transform, row["width"], row["height"]),
        epsg=row["epsg"],
        block=_COG_BLOCK,
        footprint=bytes(row["footprint"]),
        captured_at=None if taken is None else _EPOCH + timedelta(microseconds=taken),
        off_nadir_deg=row["off_nadir_deg"],
        ground_m=row["native_resolution_m"],
        priority=row["priority"],
        size=row["bytes"],
        file=None,
        bands=(1, 2, 3),
        ranges=None,
    )


def _catalogued(spark: SparkSession, root: str, collection: Collection) -> list[ChipRaster]:
    bands, ranges = collection.bands, collection.ranges
    found = []
    for row in read_catalog(spark, root, collection.name, collection.run).to_pylist():
        facts = {name: value for name, value in row.items() if name in RasterFile.__dataclass_fields__}
        file = RasterFile(**{**facts, "transform": tuple(facts["transform"])})
        grid = PixelGrid(file.crs_wkt, Affine(*file.transform), file.width, file.height)
        found.append(
            ChipRaster(
                source=collection.name,
                uri=file.uri,
                strip_id=None,
                grid=grid,
                epsg=utm_code(file.crs_wkt),
                block=(file.block_height, file.block_width),
                footprint=row["footprint"],
                captured_at=None,
                off_nadir_deg=None,
                ground_m=_ground_m(grid),
                priority=file.priority if collection.priority is None else collection.priority,
                size=None,
                file=file,
                bands=_three(bands) if bands else None,
                ranges=_three(ranges) if ranges else None,
            )
        )
    return found


def _three(given: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(given) * (3 // len(given))


@lru_cache(maxsize=256)
def utm_wkt(epsg: int) -> str:
    """The text of a CRS by its code."""
    return str(CRS.from_epsg(epsg).to_wkt())


@lru_cache(maxsize=256)
def utm_code(crs_wkt: str) -> int | None:
    """The EPSG code of a CRS that is WGS 84 / UTM; None for others."""
    code = CRS.from_wkt(crs_wkt).to_epsg(min_confidence=100)
    return code if code and code // 100 in (326, 327) and 1 <= code % 100 <= 60 else None


def _ground_m(grid: PixelGrid) -> float:
    """Size on the ground of a pixel in the middle of a raster; infinite if that is not on the Earth."""
    row, column = grid.height / 2.0 + np.array([0.0, 1.0, 0.0]), grid.width / 2.0 + np.array([0.0, 0.0, 1.0])
    lat, lon = grid.system.inverse(*grid.coordinates(row, column))
    if not (np.isfinite(lat).all() and np.isfinite(lon).all()):
        return math.inf
    sides = haversine_km(lat[:1], lon[:1], lat[1:], lon[1:])
    return 1000.0 * math.sqrt(float(sides[0] * sides[1]))
