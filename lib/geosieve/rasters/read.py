"""The files of a raster collection, read from `raster_catalog`."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import to_arrow_schema

from geosieve.rasters.files import CATALOGED_COLUMNS
from geosieve.runtime.errors import InputError
from geosieve.runtime.names import did_you_mean
from geosieve.tables.read import committed_runs, read_runs, select_runs
from geosieve.tables.schemas import RASTER_CATALOG

_AFFINE = ", ".join(f"transform.{name}" for name in "abcdef")
_WKT = "crs_wkt"


def read_catalog(spark: SparkSession, root: str, collection: str, run: str = "latest") -> pa.Table:
    """Files of one collection as a committed run of `catalog_rasters` describes them, CATALOGED_COLUMNS.

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
    frame = read_runs(spark, root, RASTER_CATALOG, select_runs(runs, run, f"raster collection {collection}"))
    # The text of a CRS is longer than all else of a file: each comes to the driver once, and files by its hash.
    key = F.sha2(_WKT, 256).alias("crs")
    # In one task, which needs no shuffle: a column of few values is small in Parquet, however many its rows are.
    texts = frame.select(key, _WKT).coalesce(1).distinct().toPandas()
    own = [name for name in CATALOGED_COLUMNS.names if name not in (_WKT, "transform")]
    listed = frame.select(*own, F.expr(f"array({_AFFINE})").alias("transform"), key)
    files = pa.Table.from_batches(listed._collect_as_arrow(), to_arrow_schema(listed.schema))
    if files["content_sha256"].null_count:
        raise InputError(
            f"the catalogue of {collection!r} was made by a version that did not look at pixels",
            where=f"{root}/{RASTER_CATALOG.name}",
            hint="run catalog_rasters for it anew",
        )
    crs = pa.array(texts[_WKT], pa.string()).take(pc.index_in(files["crs"], pa.array(texts["crs"], pa.string())))
    return files.append_column(_WKT, crs).select(CATALOGED_COLUMNS.names).cast(CATALOGED_COLUMNS)
