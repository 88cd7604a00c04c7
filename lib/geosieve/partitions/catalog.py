"""The files of a raster collection, read from `raster_catalog`."""

from __future__ import annotations

from dataclasses import fields

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from geosieve.partitions.base import CatalogedFile
from geosieve.rasters.sampling import RasterFile
from geosieve.runtime.errors import InputError
from geosieve.runtime.names import did_you_mean
from geosieve.tables.read import committed_runs, read_runs, select_runs
from geosieve.tables.schemas import RASTER_CATALOG

_FACTS = [field.name for field in fields(RasterFile) if field.name != "transform"]
_AFFINE = [f"transform.{name}" for name in "abcdef"]


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
    frame = read_runs(spark, root, RASTER_CATALOG, select_runs(runs, run, f"raster collection {collection}"))
    nullable = ("nodata", "positive_min", "value_max")
    missing = [F.col(name).isNull().alias(f"no_{name}") for name in nullable]
    listed = frame.select(*_FACTS, *_AFFINE, "footprint", *nullable[1:], *missing).toPandas()  # by Arrow
    if listed["content_sha256"].isna().any():
        raise InputError(
            f"the catalogue of {collection!r} was made by a version that did not look at pixels",
            where=f"{root}/{RASTER_CATALOG.name}",
            hint="run catalog_rasters for it anew",
        )
    for name in nullable:  # pandas writes null as NaN, which as nodata means something
        listed[name] = listed[name].astype(object).mask(listed[f"no_{name}"], None)
    shared = {wkt: wkt for wkt in listed["crs_wkt"]}  # one text for all files that share a CRS
    listed["crs_wkt"] = listed["crs_wkt"].map(shared)
    files = zip(*(listed[name] for name in _FACTS), strict=True)
    affines = zip(*(listed[name].tolist() for name in "abcdef"), strict=True)
    rest = zip(listed["footprint"], listed["positive_min"], listed["value_max"], strict=True)
    return [
        CatalogedFile(RasterFile(transform=affine, **dict(zip(_FACTS, facts, strict=True))), bytes(footprint), *limits)
        for facts, affine, (footprint, *limits) in zip(files, affines, rest, strict=True)
    ]
