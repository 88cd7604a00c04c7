"""The files of a raster collection, read from `raster_catalog`."""

from __future__ import annotations

from pyspark.sql import Row, SparkSession

from geosieve.partitions.base import CatalogedFile
from geosieve.rasters.sampling import RasterFile
from geosieve.runtime.errors import InputError
from geosieve.runtime.names import did_you_mean
from geosieve.tables.read import committed_runs, read_runs, select_runs
from geosieve.tables.schemas import RASTER_CATALOG


def read_catalog(spark: SparkSession, root: str, collection: str, run: str = "latest") -> list[CatalogedFile]:
    """Files of one collection as a committed run of `catalog_rasters` describes them.

    InputError names the collections that there are, if it is not among them.
    """
    every = committed_runs(spark, root, RASTER_CATALOG)
    runs = [r for r in every if r.values["collection"] == collection]
    if not runs:
        known = sorted({r.values["collection"] for r in every})
        raise InputError(
            f"no catalogue of raster collection {collection!r}; catalogued: {', '.join(known) or 'none'}",
            where=f"{root}/{RASTER_CATALOG.name}",
            hint=did_you_mean(collection, known) or "run catalog_rasters for it first",
        )
    rows = read_runs(spark, root, RASTER_CATALOG, select_runs(runs, run, f"raster collection {collection}")).collect()
    return [_cataloged(row) for row in rows]


def _cataloged(row: Row) -> CatalogedFile:
    names = [name for name in RasterFile.__dataclass_fields__ if name != "transform"]
    file = RasterFile(**{name: row[name] for name in names}, transform=tuple(row["transform"]))
    return CatalogedFile(file, bytes(row["footprint"]), row["positive_min"], row["value_max"])
