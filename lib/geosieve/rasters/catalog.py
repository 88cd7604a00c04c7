"""`catalog_rasters`: describes the raster files of a map once, so that later jobs can plan without opening them.

One task reads the header of a file. The pixels are read once, for the content checksum and the statistics: a small file
in the same task, a large file in parts (whole rows of blocks) that are separate tasks, so that a single huge file keeps
every core busy.
"""

from __future__ import annotations

import fnmatch
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from affine import Affine
from pydantic import Field, field_validator, model_validator
from pyproj import CRS
from pyproj.exceptions import CRSError
from pyspark import StorageLevel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import BinaryType, DoubleType, LongType, StringType, StructField, StructType
from rasterio.enums import MaskFlags
from rasterio.errors import CRSError as UnwritableCRS
from rasterio.errors import NotGeoreferencedWarning, RasterioError, RasterioIOError

from geosieve.job.main import Context
from geosieve.job.publishing import JobConfig, publishes
from geosieve.rasters import vrt, vsi
from geosieve.rasters.content import PixelFacts, content_sha256, parts, read_part, read_sample
from geosieve.rasters.footprint import Misplaced, place
from geosieve.rasters.paths import gdal_path, uri_of
from geosieve.rasters.sampling import (
    gdal_environment,
    gdal_text,
    header_digest,
    open_raster,
    store_failures,
    stored_state,
)
from geosieve.runtime.config import Config
from geosieve.runtime.errors import InputError, redact
from geosieve.runtime.files import Files
from geosieve.tables.publish import Leaf, Publication
from geosieve.tables.schemas import RASTER_CATALOG, REJECTS

_STATISTICS = ("value_min", "value_max", "positive_min")
_UNREAD = "error_class IS NULL AND content_sha256 IS NULL"
_REJECT_FIELDS = ("id", "stage", "error_class", "message")
_PART_SCHEMA = StructType(
    [
        *(StructField("uri", StringType()), StructField("first_row", LongType()), StructField("digests", BinaryType())),
        *(StructField(name, DoubleType()) for name in _STATISTICS),
        *(StructField(name, StringType()) for name in ("error_class", "message")),
    ]
)


class Priority(Config):
    """The priority of files whose name matches `pattern` (shell wildcards). The first pattern that matches counts."""

    pattern: str
    priority: int


class RasterSource(Config):
    """Configuration of one map: its raster files and how to read them."""

    collection: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$", description="name of the map")
    uri: str = Field(description="a file, a folder or a glob, on any store")
    extensions: list[str] = Field(
        [".tif", ".tiff", ".img", ".nc"], description="extensions of the files to take from a folder"
    )
    band: int = Field(1, ge=1)
    crs: str | None = Field(None, description="CRS of files that do not declare one, e.g. EPSG:4326")
    nodata: float | None = Field(None, description="value that means no data; overrides what the files declare")
    priorities: list[Priority] = []
    statistics: bool = Field(False, description="compute minimum and maximum (fitted density buckets need them)")
    vrt_sources: list[str] = Field([], description="folders of the files that VRTs may name; VRTs are refused if empty")
    checksum: Literal["full", "sampled"] = Field(
        "full",
        description="checksum every pixel, or only 16 evenly spaced blocks: changes outside of them go unnoticed",
    )

    @field_validator("crs")
    @classmethod
    def _known(cls, crs: str | None) -> str | None:
        try:
            return crs if crs is None else CRS.from_user_input(crs).to_wkt()
        except CRSError as error:
            raise ValueError(f"{crs!r} is no CRS: {error}") from None

    @model_validator(mode="after")
    def _whole(self) -> RasterSource:
        if self.statistics and self.checksum == "sampled":
            raise ValueError("statistics read every pixel anyway: leave out `checksum: sampled`")
        return self


class CatalogConfig(JobConfig):
    """Configuration of `catalog_rasters`."""

    rasters: RasterSource


class _Refused(Exception):
    """A file cannot be catalogued. Arguments: error class, message."""


def _leaves(config: CatalogConfig) -> list[Leaf]:
    collection = config.rasters.collection
    return [
        Leaf(REJECTS, {"job": "catalog_rasters", "part": collection}),
        Leaf(RASTER_CATALOG, {"collection": collection}),
    ]


@publishes(_leaves)
def catalog_rasters(context: Context[CatalogConfig], publication: Publication) -> int:
    """List the files, describe them in parallel, and publish `raster_catalog` and `rejects`.

    Returns the number of input files; 0 in a dry run. InputError if there is no file, or none of them can be used.
    """
    source, report = context.config.rasters, context.report
    with report.stage("list"):
        uris = list_rasters(Files(context.spark), source.uri, source.extensions)
    described = _describe_all(context.spark, uris, source)
    read = _read_all(described, source)
    _tell_sidecars(context, uris)
    if context.dry_run:
        found = {"files": len(uris), "first": uris[0], "last": uris[-1]}
        context.show_plan(found, {"raster_catalog": read})
        return 0
    described.persist(StorageLevel.MEMORY_AND_DISK)
    read.persist(StorageLevel.MEMORY_AND_DISK)
    try:
        with report.stage("describe"):
            report.details["read_in_parts"] = described.where(_UNREAD).count()
        with report.stage("read"):
            rejects = read.where("error_class IS NOT NULL").select(*REJECTS.spark_schema().names)
            classes = {row["error_class"]: row["count"] for row in rejects.groupBy("error_class").count().collect()}
        report.rows_in, report.rejected = len(uris), classes
        if sum(classes.values()) == len(uris):
            first = rejects.first()
            raise InputError(
                f"none of {len(uris)} files can be used; the first: {first['message'] if first else ''}",
                where=source.uri,
            )
        with report.stage("write"):
            publication.write(REJECTS, rejects)
            files = read.where("error_class IS NULL").withColumn("footprint", F.expr("ST_GeomFromWKB(footprint)"))
            names = [name for name in RASTER_CATALOG.spark_schema().names if name != "bbox"]
            report.rows_out = publication.write(RASTER_CATALOG, files.select(*names).coalesce(1))
        return report.rows_in
    finally:
        read.unpersist()
        described.unpersist()


def list_rasters(files: Files, uri: str, extensions: Sequence[str]) -> list[str]:
    """Sorted URIs of the files that a file, a folder or a glob names. InputError if there is none.

    extensions: of the files to take from folders; a file that is named explicitly may have any.
    """
    found = files.glob(uri)
    flat = [f for entry in found for f in (files.walk(entry.uri) if entry.is_folder else [entry])]
    named = {entry.uri for entry in found if not entry.is_folder}
    uris = [f.uri for f in flat if f.uri in named or f.name.lower().endswith(tuple(extensions))]
    if not uris:
        raise InputError("no raster file", where=uri, hint=f"looked for {', '.join(extensions)}")
    return sorted(uris)


def _tell_sidecars(context: Context[CatalogConfig], uris: list[str]) -> None:
    """Warn if rasters on S3 have mask or metadata files beside them: these are not read on S3."""
    if gdal_path(uris[0]).startswith("/vsi"):
        files = Files(context.spark)
        there = {entry.uri for folder in {uri.rpartition("/")[0] for uri in uris} for entry in files.list(folder)}
        names = (name for uri in uris for name in vsi.sidecars(uri) if not vsi.only_georeferences(name))
        beside = sorted(name for name in names if name in there)
        if beside:
            context.report.warn(
                f"{len(beside)} files beside rasters are not read on S3, e.g. {beside[0]}: if they hold a mask, nodata "
                "or a CRS, put these into the rasters"
            )


def _schema() -> StructType:
    """Columns of the catalogue (footprint as WKB) and of the rejects. A row fills either the former or the latter."""
    fields = [
        StructField(f.name, BinaryType() if f.name == "footprint" else f.dataType)
        for f in RASTER_CATALOG.spark_schema().fields
        if f.name != "bbox"
    ]
    return StructType([*fields, *(StructField(name, StringType()) for name in _REJECT_FIELDS)])


def _describe_all(spark: SparkSession, uris: list[str], source: RasterSource) -> DataFrame:
    """One row per file, with the columns of `_schema`. Checksum and statistics of large files are still null."""
    schema = _schema()
    arrow = to_arrow_schema(schema)

    def describe_batches(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        with gdal_environment(), warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # such files are refused below
            for batch in batches:
                rows = [_describe_or_refuse(uri, source) for uri in batch["uri"].to_pylist()]
                yield pa.RecordBatch.from_pylist(rows, schema=arrow)

    listed = spark.createDataFrame([(uri,) for uri in uris], "uri string")
    tasks = min(len(uris), 4 * spark.sparkContext.defaultParallelism)
    return listed.repartition(tasks, "uri").mapInArrow(describe_batches, schema)


def _read_all(described: DataFrame, source: RasterSource) -> DataFrame:
    """The described files with checksum and statistics filled in; files that cannot be read become rejects."""
    parted = StructType([*described.schema.fields, StructField("first_row", LongType())])
    parted_arrow, part_arrow = to_arrow_schema(parted), to_arrow_schema(_PART_SCHEMA)
    arrow = to_arrow_schema(described.schema)

    def part_batches(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            rows = [{**row, "first_row": first} for row in batch.to_pylist() for first in _first_rows(row, source)]
            yield pa.RecordBatch.from_pylist(rows, schema=parted_arrow)

    def read_batches(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        with gdal_environment():
            for batch in batches:
                rows = [_read_or_refuse(row, source) for row in batch.to_pylist()]
                yield pa.RecordBatch.from_pylist(rows, schema=part_arrow)

    def combine_batches(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            rows = [combine(row, row.pop("parts"), source) for row in batch.to_pylist()]
            yield pa.RecordBatch.from_pylist(rows, schema=arrow)

    tasks = 4 * described.sparkSession.sparkContext.defaultParallelism
    large = described.where(_UNREAD)
    read = large.mapInArrow(part_batches, parted).repartition(tasks).mapInArrow(read_batches, _PART_SCHEMA)
    names = [name for name in read.columns if name != "uri"]
    gathered = read.groupBy("uri").agg(F.sort_array(F.collect_list(F.struct(*names))).alias("parts"))
    done = described.where(f"NOT ({_UNREAD})")
    return large.join(gathered, "uri").mapInArrow(combine_batches, described.schema).unionByName(done)


def _first_rows(row: dict[str, Any], source: RasterSource) -> Sequence[int]:
    """First pixel row of each part in which a described file is read."""
    return [0] if source.checksum == "sampled" else parts(row["height"], row["width"])


def _read_or_refuse(row: dict[str, Any], source: RasterSource) -> dict[str, Any]:
    part = {"uri": row["uri"], "first_row": row["first_row"]}
    try:
        with open_raster(row["uri"], vrt.resolve(row["uri"], source.vrt_sources)) as dataset:
            return part | _read_content(dataset, row, row["first_row"], source)
    except _Refused as refused:
        return part | dict(zip(("error_class", "message"), refused.args, strict=True))
    except (RasterioError, OSError) as error:  # e.g. deleted since it was described
        return part | {"error_class": "not_a_raster", "message": f"GDAL cannot open it: {gdal_text(error)}"}


def _read_content(dataset: Any, row: dict[str, Any], first_row: int, source: RasterSource) -> dict[str, Any]:
    """Digests and statistics of one part of a described file. Raises `_Refused` if a block cannot be decoded."""
    try:
        with store_failures(row["uri"]):
            if source.checksum == "sampled":
                return {"digests": read_sample(dataset, _pixel_facts(row))}
            return read_part(dataset, _pixel_facts(row), first_row, source.statistics)
    except (RasterioError, OSError) as error:
        raise _Refused("truncated", f"its pixels from row {first_row} on cannot be read: {gdal_text(error)}") from error


def _pixel_facts(row: dict[str, Any]) -> PixelFacts:
    return PixelFacts(row["band"], row["nodata"], row["mask"] != "none", row["scale"], row["offset"])


def combine(row: dict[str, Any], read: list[dict[str, Any]], source: RasterSource) -> dict[str, Any]:
    """Return the complete catalogue row of a described file.

    `read` are the results of its parts, in order of their first rows. If a part could not be read, the row is a reject.
    """
    failed = next((part for part in read if part.get("error_class")), None)
    if failed:
        return _reject(row["uri"], failed["error_class"], failed["message"])
    pixels = _pixel_facts(row)
    digests = b"".join(bytes(part["digests"]) for part in read)
    size = (row["height"], row["width"])
    found = {
        name: choose(values)
        for name, choose in zip(_STATISTICS, (min, max, min), strict=True)
        if (values := [part[name] for part in read if part.get(name) is not None])
    }
    return {**row, **found, "content_sha256": content_sha256(row["dtype"], size, pixels, source.checksum, digests)}


def _describe_or_refuse(uri: str, source: RasterSource) -> dict[str, Any]:
    try:
        return _described(uri, source, most_parts=1)
    except _Refused as refused:
        return _reject(uri, *refused.args)


def _reject(uri: str, error_class: str, message: str) -> dict[str, Any]:
    path = gdal_path(uri)
    unread = error_class in ("not_a_raster", "no_georeference", "missing_crs") and path.startswith("/vsi")
    if unread and not vrt.is_vrt(path):
        beside = ", ".join(name.rpartition("/")[2] for name in vsi.sidecars(path) if vsi.exists(name))
        message = f"{message} ({beside} is not read on S3)" if beside else message
    return {
        "id": uri.rsplit("/", 1)[-1],
        "uri": redact(uri),
        "stage": "describe",
        "error_class": error_class,
        "message": redact(message)[:500],
    }


def catalog_file(uri: str, source: RasterSource) -> dict[str, Any]:
    """Return the complete catalogue row of one file as a dict, with the footprint as WKB. Reads in this process.

    Raises `_Refused(error_class, message)` if the file cannot be catalogued. Failures of the store (throttling, no
    access) are raised as RetryableError or InputError.
    """
    with gdal_environment():
        return _described(uri, source, most_parts=None)


def _described(uri: str, source: RasterSource, most_parts: int | None) -> dict[str, Any]:
    """The catalogue row of a file, without checksum and statistics if the file has more than `most_parts` parts."""
    try:
        resolved = admitted(uri, source.vrt_sources)
        stored = [] if resolved else stored_state(uri)
        with open_raster(uri, resolved) as dataset:
            row = _row(uri, dataset, source) | {"header_sha256": header_digest(dataset, source.band, stored)}
            firsts = _first_rows(row, source)
            if most_parts is not None and len(firsts) > most_parts:
                return row
            return combine(row, [_read_content(dataset, row, first, source) for first in firsts], source)
    except UnwritableCRS as error:
        raise _Refused("unusable_crs", f"GDAL cannot write down its CRS: {error}") from error
    except (RasterioError, OSError) as error:
        raise _Refused("not_a_raster", f"GDAL cannot open it: {gdal_text(error)}") from error


def admitted(uri: str, folders: Sequence[str]) -> str | None:
    """The resolved VRT if the file is a VRT whose files lie in one of the folders; None if it is no VRT.

    Every file that the VRT names is checked first, because GDAL opens them when pixels are read. RasterioIOError names
    the first file that is not an accepted raster.
    """
    resolved = vrt.resolve(uri, folders)
    for path in sorted(set(vrt.files(resolved))) if resolved else ():
        with open_raster(uri_of(path)) as dataset:
            if dataset.driver not in vrt.SOURCE_DRIVERS:
                raise RasterioIOError(f"{uri} names {path}, which is {dataset.driver}: such files may name others")
    return resolved


def _row(uri: str, dataset: Any, source: RasterSource) -> dict[str, Any]:
    band = source.band
    if not dataset.count and dataset.subdatasets:
        names = ", ".join(name.rsplit(":", 1)[-1] for name in dataset.subdatasets[:9])
        raise _Refused("several_rasters", f"it holds {names}: copy one out, e.g. gdal_translate NETCDF:f.nc:name f.tif")
    if band > dataset.count:
        raise _Refused("missing_band", f"it has {dataset.count} bands, not {band}")
    dtype = dataset.dtypes[band - 1]
    if np.dtype(dtype).kind not in "iuf":
        raise _Refused("unsupported_type", f"pixels of type {dtype}")
    if dataset.transform.is_identity or dataset.transform.is_degenerate:
        raise _Refused("no_georeference", "it has no usable geotransform (or ground control points only)")
    crs_wkt = dataset.crs.to_wkt() if dataset.crs else source.crs
    if not crs_wkt:
        raise _Refused("missing_crs", "it names no CRS; set rasters.crs if you know it")
    transform: Affine = dataset.transform
    try:
        is_global, outline = place(crs_wkt, transform, dataset.width, dataset.height)
    except Misplaced as misplaced:
        raise _Refused(*misplaced.args) from misplaced
    mask, nodata = validity(dataset, source.band, source.nodata)
    block_height, block_width = dataset.block_shapes[band - 1]
    return {
        "uri": uri,
        "band": band,
        "priority": _priority(uri, source),
        "driver": dataset.driver,
        "crs_wkt": crs_wkt,
        "transform": dict(zip("abcdef", transform[:6], strict=True)),
        "width": dataset.width,
        "height": dataset.height,
        "bands": dataset.count,
        "dtype": dtype,
        "scale": dataset.scales[band - 1],
        "offset": dataset.offsets[band - 1],
        "nodata": nodata,
        "mask": mask,
        "block_height": block_height,
        "block_width": block_width,
        "is_global": is_global,
        "footprint": outline.wkb,
    }


def validity(dataset: Any, band: int, nodata: float | None) -> tuple[str, float | None]:
    """How invalid pixels of a band are marked: the kind of mask (`none`, `mask` or `alpha`) and the nodata value.

    The given nodata value comes first, then a mask or alpha band, then the nodata value declared in the file.
    """
    if nodata is not None:
        return "none", nodata
    flags = dataset.mask_flag_enums[band - 1]
    if MaskFlags.alpha in flags or MaskFlags.per_dataset in flags or not flags:  # none: a mask of this band alone
        return ("alpha" if MaskFlags.alpha in flags else "mask"), None
    return "none", dataset.nodatavals[band - 1]


def _priority(uri: str, source: RasterSource) -> int:
    name = uri.rsplit("/", 1)[-1]
    return next((p.priority for p in source.priorities if fnmatch.fnmatch(name, p.pattern)), 0)
