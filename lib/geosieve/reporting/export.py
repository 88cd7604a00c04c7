"""Job `export_regions`: the answers of some images as shapes, for GIS programs."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import shapely
from pyspark.errors import AnalysisException, ParseException
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from geosieve.ensemble.ranking import coarse_overlay
from geosieve.job.main import Context
from geosieve.overlay.read import read_published
from geosieve.reporting.answers import Answers, read_answers
from geosieve.reporting.export_config import ExportConfig
from geosieve.reporting.shapes import shapes_of
from geosieve.runtime.errors import ConfigError, InputError
from geosieve.runtime.files import Files
from geosieve.runtime.output import check_output_file
from geosieve.tables.schemas import IMAGE_KEY

JOB = "export_regions"
_COLUMNS = (
    *("source", "image_id", "rank", "atom", "probability", "area_km2", "cumulative_probability"),
    *("cumulative_area_km2", "lat", "lon"),
)
_DRIVERS = {".gpkg": "GPKG", ".fgb": "FlatGeobuf"}


def export_regions(context: Context[ExportConfig]) -> None:
    """Write the file: one feature per image and region of its answer, with the columns of `ranked_regions`.

    `shape_km2` is the area of the shape, and `shape_is` says what it is made of (see `shapes`); `area_km2` is exact.

    InputError if an image is not there, if there are more than the configuration allows, or if the overlay that is
    named is not the one that was ranked. ConfigError if the condition cannot be understood.
    """
    config, report, spark = context.config, context.report, context.spark
    with report.stage("inputs"):
        answers = read_answers(spark, config.answers)
        chosen = _chosen(answers, config)
    if context.dry_run:
        context.show_plan({f"run {run.run_id}": f"{run.rows} images" for run in answers.runs}, {"images": chosen})
        return
    files = Files(spark)
    check_output_file(files, config.output)
    with report.stage("images"):
        keys = [tuple(row) for row in chosen.select(*IMAGE_KEY).limit(config.most_images + 1).collect()]
        _check(config, keys)
        report.rows_in = len(keys)
    with report.stage("regions"):
        named = F.broadcast(spark.createDataFrame(keys, "source string, image_id string"))
        place = F.row_number().over(Window.partitionBy(*IMAGE_KEY).orderBy("rank"))
        regions = answers.regions.join(named, [*IMAGE_KEY]).withColumn("place", place)
        rows = regions.where(F.col("place") <= config.regions).select(*_COLUMNS).toPandas()
        rows = rows.sort_values([*IMAGE_KEY, "rank"]).reset_index(drop=True)
    with report.stage("shapes"):
        published = read_published(spark, config.overlay)
        overlay = published.overlay()
        region_of_atom = answers.region_of_atom(overlay)
        regions_overlay = overlay if answers.least_km2 is None else coarse_overlay(overlay, region_of_atom)
        shapes = shapes_of(published, regions_overlay, region_of_atom, np.unique(rows["atom"].to_numpy(np.int64)))
    with report.stage("write"):
        mine = [shapes[atom] for atom in rows["atom"]]
        rows["shape_km2"] = [shape.area_km2 for shape in mine]
        rows["shape_is"] = [shape.made_of for shape in mine]
        geometry = np.array([shape.geometry for shape in mine], dtype=object)
        with TemporaryDirectory(prefix="geosieve-") as folder:
            local = Path(folder) / config.output.rpartition("/")[2]
            (write_geoparquet if local.suffix == ".parquet" else _write)(local, rows, geometry)
            files.upload(str(local), config.output)
    report.rows_out = len(rows)
    report.outputs = [config.output]
    report.details["shapes"] = {kind: int(n) for kind, n in rows["shape_is"].value_counts().items()}


def _chosen(answers: Answers, config: ExportConfig) -> DataFrame:
    """The summaries of the chosen images."""
    if config.images:
        wanted = [(one.source, one.image_id) for one in config.images]
        named = answers.summaries.sparkSession.createDataFrame(wanted, "source string, image_id string").distinct()
        return answers.summaries.join(F.broadcast(named), [*IMAGE_KEY])
    try:
        return answers.summaries.where(config.where)
    except (AnalysisException, ParseException) as error:
        raise ConfigError(
            f"no condition on the columns of image_summary: {str(error).splitlines()[0][:300]}", where="where"
        ) from error


def _check(config: ExportConfig, keys: list[tuple[str, str]]) -> None:
    if len(keys) > config.most_images:
        raise InputError(
            f"there are more than {config.most_images:,} images",
            where="most_images",
            hint="ask for fewer, or allow more: shapes take memory, and files of them are large",
        )
    missing = sorted({(one.source, one.image_id) for one in config.images} - set(keys))
    if missing:
        raise InputError(f"{len(missing)} images have no answer, e.g. {'/'.join(missing[0])[:200]}", where="images")
    if not keys:
        raise InputError("no image meets the condition", where="where")


def _write(path: Path, rows: pd.DataFrame, geometry: Any) -> None:
    columns = [rows[name].to_numpy() for name in rows]
    pyogrio.raw.write(
        str(path),
        shapely.to_wkb(geometry),
        columns,
        list(rows),
        geometry_type="MultiPolygon",
        crs="EPSG:4326",
        driver=_DRIVERS[path.suffix],
        layer="regions",
    )


def write_geoparquet(path: Path, rows: pd.DataFrame, geometry: Any) -> None:
    """GeoParquet 1.1: WKB in longitude and latitude of WGS-84 (OGC:CRS84, the default)."""
    bounds = shapely.total_bounds(geometry).tolist() if len(geometry) else None
    column = {"encoding": "WKB", "geometry_types": ["MultiPolygon"], "edges": "planar"}
    if bounds is not None:
        column["bbox"] = bounds
    facts = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
    table = pa.Table.from_pandas(rows, preserve_index=False)
    table = table.append_column("geometry", pa.array(shapely.to_wkb(geometry).tolist(), pa.binary()))
    table = table.replace_schema_metadata({"geo": json.dumps(facts)})
    pq.write_table(table, path, compression="zstd")
