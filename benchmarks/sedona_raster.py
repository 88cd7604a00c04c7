"""Sedona's raster functions against geosieve's sampling in one Spark session: 100,000 points, 1440 x 720 raster."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

import numpy as np
import pyarrow as pa
import rasterio
from numpy.typing import NDArray
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from rasterio.transform import from_origin

from benchmarks import FOLDER
from benchmarks.fabricate import clustered_points
from benchmarks.maps import cataloged
from benchmarks.timing import bar, interleaved
from geosieve.rasters.candidates import NOTHING
from geosieve.rasters.files import CatalogedFile, file_table
from geosieve.rasters.mosaic import Mosaic
from geosieve.runtime.session import spark_session

POINTS, TILE = 100_000, 64


def small_raster() -> Path:
    """Write a quarter-degree float32 raster of synthetic values (deflate, tiles of 64) and return its path."""
    path = FOLDER / "quarter_degree.tif"
    profile = {
        "driver": "GTiff", "width": 1440, "height": 720, "count": 1, "dtype": "float32", "nodata": -1.0,
        "crs": "EPSG:4326", "transform": from_origin(-180, 90, 0.25, 0.25), "tiled": True,
        "blockxsize": TILE, "blockysize": TILE, "compress": "deflate",
    }  # fmt: skip
    values = np.random.default_rng(5).random((720, 1440), dtype=np.float32)
    with rasterio.open(path, "w", **profile) as raster:
        raster.write(values, 1)
    return path.resolve()


def sedona(spark: SparkSession, path: Path, points: DataFrame) -> DataFrame:
    """Values as Sedona documents it: divide the file into tiles, and join them with the points by their envelopes."""
    raster = spark.read.format("binaryFile").load(str(path)).selectExpr("RS_FromGeoTiff(content) AS raster")
    tiles = raster.selectExpr(f"RS_TileExplode(raster, {TILE}, {TILE}) AS (x, y, tile)")
    located = points.selectExpr("id", "ST_SetSRID(ST_Point(lon, lat), 4326) AS point")
    joined = located.join(tiles, F.expr("ST_Intersects(RS_Envelope(tile), point)"))
    return joined.selectExpr("id", "RS_Value(tile, point) AS value")


def ours(path: Path, points: DataFrame) -> DataFrame:
    """Values as `label_attributes` reads them: each batch of points is looked up in the map."""
    rasters = Mosaic.of(file_table([CatalogedFile(cataloged(path), b"", None, None)]))

    def values(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            lat, lon = batch["lat"].to_numpy(), batch["lon"].to_numpy()
            found, _ = rasters.reader.values(lat, lon, NOTHING.candidates(lat, lon))
            yield pa.RecordBatch.from_pydict({"id": batch["id"], "value": found})

    return points.mapInArrow(values, "id bigint, value double")


def collected(frame: DataFrame) -> NDArray[np.float64]:
    """Collect the values in order of ids. Asserts that there is one value per id."""
    table = frame.toPandas().sort_values("id")
    assert np.array_equal(table["id"], np.arange(POINTS))
    return table["value"].to_numpy()


def main() -> int:
    """Return exit code 1 if the bar is missed. Asserts that all values are equal."""
    os.environ["PYSPARK_SUBMIT_ARGS"] = "--master local[2] --driver-memory 2g pyspark-shell"
    path = small_raster()
    lat, lon = clustered_points(POINTS, seed=7)
    with spark_session("sedona_raster", local=False) as spark:
        table = pa.table({"id": np.arange(POINTS), "lat": lat, "lon": lon})
        points = spark.createDataFrame(table.to_pandas()).repartition(4).cache()
        points.count()
        works = {
            "sedona": lambda: collected(sedona(spark, path, points)),
            "ours": lambda: collected(ours(path, points)),
        }
        for work in works.values():
            work()  # load classes and start workers before timing
        seconds, values = interleaved(works, clock=perf_counter)
    assert np.array_equal(values["sedona"], values["ours"])
    print(", ".join(f"{name} {s:.2f} s" for name, s in seconds.items()) + f" for {POINTS:,} points, values equal")
    return 0 if bar("Sedona's time over ours", seconds["sedona"] / seconds["ours"], 1.0, at_least=True) else 1


if __name__ == "__main__":
    sys.exit(main())
