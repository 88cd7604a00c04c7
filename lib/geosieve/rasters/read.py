"""The files of a raster collection, read from `raster_catalog`."""

from __future__ import annotations

import pyarrow as pa
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
    # Each CRS comes once and not with each file: its text is longer than all else.
    texts = frame.select(_WKT).distinct().toPandas()[_WKT].tolist()
    numbers = spark.createDataFrame([(text, number) for number, text in enumerate(texts)], f"{_WKT} string, crs int")
    own = [name for name in CATALOGED_COLUMNS.names if name not in (_WKT, "transform")]
    affine = F.expr(f"array({_AFFINE})").alias("transform")
    listed = frame.join(F.broadcast(numbers), _WKT).select(*own, affine, "crs")
    files = pa.Table.from_batches(listed._collect_as_arrow(), to_arrow_schema(listed.schema))
    if files["content_sha256"].null_count:
        raise InputError(
            f"the catalogue of {collection!r} was made by a version that did not look at pixels",
            where=f"{root}/{RASTER_CATALOG.name}",
            hint="run catalog_rasters for it anew",
        )
    shared = pa.DictionaryArray.from_arrays(files["crs"].combine_chunks(), pa.array(texts, pa.string()))
    return files.append_column(_WKT, shared.cast(pa.string())).select(CATALOGED_COLUMNS.names).cast(CATALOGED_COLUMNS)
