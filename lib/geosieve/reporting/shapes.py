"""Regions of answers as shapes for GIS: unions of the overlay's pixels.

A pixel that several atoms share goes as a whole to the one with the largest share, so shapes tile the Earth and do not
overlap. An atom that no pixel goes to, because it is smaller than a pixel, becomes a box of its area around its
centroid.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F
from shapely.geometry import MultiPolygon, box

from geosieve.geo.antimeridian import wrapped
from geosieve.geo.arrays import F8, I8
from geosieve.geo.grid import EqualAngleGrid
from geosieve.geo.plane import areas_km2
from geosieve.geo.sphere import EARTH_RADIUS_KM, cell_area_km2
from geosieve.overlay.atoms import Overlay
from geosieve.overlay.read import PublishedOverlay
from geosieve.runtime.errors import InputError

MOST_RUNS = 500_000
"""Runs of pixels that the driver joins to shapes at most: 80,000 ragged ones took nine seconds."""

PIXELS, BOX = "pixels", "box"
"""What a shape is made of: whole pixels, or, where there are none, a box of the region's area around its centroid."""


@dataclass(frozen=True)
class Shape:
    """A region's shape in longitude and latitude, cut at ±180; its own area on the sphere, km²; PIXELS or BOX."""

    geometry: MultiPolygon
    area_km2: float
    made_of: str


def shapes_of(published: PublishedOverlay, regions: Overlay, region_of_atom: I8, wanted: I8) -> Mapping[int, Shape]:
    """The shape of each wanted region.

    `regions`: the overlay whose atoms are the regions of answers; `region_of_atom`: the region of each atom of the
    published overlay, (atoms,). InputError if they have more than MOST_RUNS runs of pixels, or if the pixels are of
    another overlay.
    """
    atoms = np.flatnonzero(np.isin(region_of_atom, wanted))
    rows = _runs(published, atoms)
    region = region_of_atom[rows["atom"]]
    order = np.argsort(region, kind="stable")
    found, first = np.unique(region[order], return_index=True)
    boxes = _boxes(published.grid, *(rows[name][order] for name in ("row", "column", "length")))
    shapes = [shapely.union_all(part) for part in np.split(boxes, first[1:])] if found.size else []
    area = areas_km2(np.array(shapes, dtype=object))
    made = {
        int(of): Shape(_multi(shape), float(km2), PIXELS) for of, shape, km2 in zip(found, shapes, area, strict=True)
    }
    for of in np.setdiff1d(wanted, found):
        shape = around(regions.lat[of], regions.lon[of], regions.area_km2[of])
        made[int(of)] = Shape(shape, float(areas_km2(np.array([shape], dtype=object))[0]), BOX)
    return made


def around(lat: float, lon: float, area_km2: float) -> MultiPolygon:
    """A box of this area on the sphere around a point, about as high as it is wide.

    Near a pole, where it would be wider than the Earth, it is the cap of this area.
    """
    side = min(np.degrees(np.sqrt(area_km2) / EARTH_RADIUS_KM), 180.0)
    south, north = max(lat - side / 2, -90.0), min(lat + side / 2, 90.0)
    width = 360.0 * area_km2 / float(cell_area_km2(south, north, 360.0))
    if width > 360.0:
        height = np.degrees(2 * np.arcsin(np.sqrt(area_km2 / (4 * np.pi)) / EARTH_RADIUS_KM))
        south, north = (90.0 - height, 90.0) if lat > 0 else (-90.0, height - 90.0)
        width = 360.0
    return _multi(wrapped(box(lon - width / 2, south, lon + width / 2, north)))


def _multi(shape: shapely.Geometry) -> MultiPolygon:
    return MultiPolygon(shapely.get_parts(shape))


def _boxes(grid: EqualAngleGrid, row: I8, column: I8, length: I8) -> NDArray[np.object_]:
    edges: F8 = grid.row_edges()
    west, east = ((2 * at - grid.cols) * 180.0 / grid.cols for at in (column, column + length))
    return np.asarray(shapely.box(west, edges[row + 1], east, edges[row]))


def _runs(published: PublishedOverlay, atoms: I8) -> dict[str, I8]:
    """Row, column, length and atom of the runs of pixels that go to the atoms."""
    runs = published.runs.select("row", "column", "length", "share", "atom", "overlay_hash")
    spark = runs.sparkSession
    wanted = F.broadcast(spark.createDataFrame([(int(atom),) for atom in atoms], "atom bigint"))
    mine = runs.join(wanted, "atom")
    others = [row[0] for row in mine.select("overlay_hash").distinct().take(2) if row[0] != published.digest]
    if others:
        raise InputError(f"the pixels are of overlay {others[0][:12]}…, the atoms of {published.digest[:12]}…")
    whole, part = mine.where("share = 1"), mine.where("share < 1").select("row", "column").distinct()
    columns = ("row", "column", "length", "atom")
    chosen = whole.select(*columns).unionByName(_winners(runs, part).join(wanted, "atom").select(*columns))
    rows = chosen.limit(MOST_RUNS + 1).toPandas()
    if len(rows) > MOST_RUNS:
        raise InputError(f"the regions have more than {MOST_RUNS:,} runs of pixels", hint="export fewer images")
    return {name: rows[name].to_numpy(np.int64) for name in columns}


def _winners(runs: DataFrame, pixels: DataFrame) -> DataFrame:
    """The part with the largest share of each pixel that several atoms share; of equal ones, the first atom's."""
    parts = runs.where("share < 1").join(pixels, ["row", "column"])
    best = F.row_number().over(Window.partitionBy("row", "column").orderBy(F.col("share").desc(), "atom"))
    return parts.withColumn("place", best).where("place = 1")
