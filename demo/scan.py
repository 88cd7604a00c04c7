"""The demo of archive scans: an archive of SYNTHETIC scenes is scanned, grows, is scanned again, and asked in SQL.

Predictors learn in seconds from colours of other synthetic scenes, so their answers are poor. What is shown is how an
archive is scanned: hostile files become rejects, copies are linked, a second scan does nothing, a new file is done
alone.
"""

from __future__ import annotations

import csv
import json
import logging
import os
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import duckdb
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from pyspark.sql import SparkSession

from demo import colours, prepare
from demo.archive import as_photo, write_archive
from demo.regions import EVIDENCE, label_with_evidence
from demo.run import TABLES, job
from demo.scenes import maps
from demo.scenes.draw import draw
from geosieve.inference.archive_config import GeolocateConfig
from geosieve.inference.geolocate import geolocate_archive
from geosieve.overlay.read import OverlayInput, read_published
from geosieve.reporting.archive import report_archive
from geosieve.reporting.archive_config import ReportConfig
from geosieve.runtime.config import read_yaml
from geosieve.runtime.logs import logger
from geosieve.runtime.session import spark_session
from geosieve.sql.config import RegisterConfig
from geosieve.sql.duckdb import register
from geosieve.sql.register import register_tables
from geosieve.tables.read import committed_runs, read_runs
from geosieve.tables.schemas import labels_table

LEARNED, SCANNED, SIDE, SEED = 2_000, 600, 96, 7
FOLDER = Path("build/scan")
ARCHIVE = FOLDER / "archive"
CONF, QUERY = "conf/geolocate_archive/demo.yaml", Path("deploy/sql/most_photos.sql")
PARTITIONS = ("cells", "density", "land_cover")


def run() -> int:
    """Run the demo and print its results. Return exit code 0."""
    logger().setLevel(logging.WARNING)
    prepare.population_proxy()
    start = perf_counter()
    pictures = _draw()
    run_id = datetime.now(UTC).strftime("demo-%Y%m%dT%H%M%SZ")
    print("starting Spark ...", flush=True)
    with spark_session("geosieve demo", local=True) as spark:
        evidence = {path.stem: read_yaml(path) for path in sorted(EVIDENCE.glob("*.yaml"))}
        label_with_evidence("scan", "conf/ingest_images/scan.yaml", run_id, evidence, {"sources": ["scan_scenes"]})
        overlay = read_published(spark, OverlayInput(root=str(TABLES), name="scan", run=run_id)).overlay()
        labels = _labels(spark, run_id)
        members = []
        for partition in overlay.partitions:
            path = FOLDER / f"{partition.name}.npz"
            colours.fit(pictures, labels[partition.name].to_numpy(np.int64), path)
            options = {"path": str(path.resolve()), "partition": partition.name}
            options |= {"digest": partition.digest, "regions": partition.n_regions}
            members.append(f"members.{partition.name}.options={json.dumps(options)}")
        settings = [f"overlay.run={run_id}", *members]

        def scan(number: int) -> dict[str, Any]:
            began = perf_counter()
            report = job("geolocate_archive", GeolocateConfig, geolocate_archive, CONF, f"{run_id}-{number}", settings)
            return {**report, "took": perf_counter() - began}

        first = scan(1)
        _print_scan("first scan", first)
        again = scan(2)
        print(f"second scan: {again['status']}, {again['took']:.1f} s")
        _grow()
        _print_scan("after one new file and a copy", scan(3))
        sql, page = "conf/register_tables/sqlite.yaml", "conf/report_archive/demo.yaml"
        job("register_tables", RegisterConfig, register_tables, sql, run_id, ["catalog.folder=build/catalog"])
        job("report_archive", ReportConfig, report_archive, page, run_id, [f"truth.overlay.run={run_id}"])
    _ask()
    print(f"""
page      {read_yaml(page)["output"]}
answers   {TABLES}/ranked_regions/ranking=demo   ({perf_counter() - start:.0f} s)
queries   deploy/sql, over the views that `python -m geosieve.sql.duckdb {TABLES}` prints""")
    return 0


def _draw() -> list[NDArray[np.uint8]]:
    """Draw scenes: those to learn from, which are returned and whose positions are listed, and those of the archive."""
    positions = pd.read_csv(prepare.positions())
    chosen = np.random.default_rng(SEED).choice(len(positions), LEARNED + SCANNED, replace=False)
    lat, lon = (positions[axis].to_numpy()[chosen] for axis in ("lat", "lon"))
    facts = maps.read(lat, lon)
    numbers = np.arange(LEARNED + SCANNED)
    print(f"drawing {len(numbers):,} synthetic scenes ...", flush=True)
    pictures = [picture for some in np.array_split(numbers, 8) for picture in draw(facts[some], SEED, some, SIDE)]
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    with (FOLDER / "scenes.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "latitude", "longitude"])
        writer.writerows((f"{n:06d}", repr(float(lat[n])), repr(float(lon[n]))) for n in range(LEARNED))
    photos = (
        as_photo(Image.fromarray(pictures[n]), float(lat[n]), float(lon[n])) for n in range(LEARNED, len(numbers))
    )
    write_archive(ARCHIVE, photos, SCANNED // 3)
    return pictures[:LEARNED]


def _grow() -> None:
    """A new file, and a copy of a known one under another name."""
    known = sorted((ARCHIVE / "folder").glob("0*.jpg"))
    Image.open(known[0]).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(ARCHIVE / "folder" / "new.jpg")
    shutil.copy(known[1], ARCHIVE / "folder" / "copy.jpg")


def _labels(spark: SparkSession, run_id: str) -> pd.DataFrame:
    """Regions of the scenes to learn from, in their order."""
    table = labels_table(list(PARTITIONS))
    runs = [run for run in committed_runs(spark, str(TABLES), table) if run.run_id == run_id]
    return read_runs(spark, str(TABLES), table, runs).toPandas().sort_values("image_id").reset_index(drop=True)


def _print_scan(what: str, report: dict[str, Any]) -> None:
    images, took = report["details"]["images"], report["took"]
    print(f"{what}: {images['computed']} images looked at, {images['linked']} copies linked, {took:.1f} s; refused:")
    for error_class, n in report["rejected"].items():
        print(f"  {n:>7}  {error_class}")


def _ask() -> None:
    """Ask the tables in SQL, by one of the queries in deploy/sql."""
    query = QUERY.read_text().replace("'example'", "'demo'")
    connection = duckdb.connect()
    register(connection, str(TABLES))
    print(f"\nwhere the answers of the SYNTHETIC scenes lie ({QUERY}):\n")
    print(connection.sql(query).project("lat, lon, area_km2, images, mean_probability").limit(8))


if __name__ == "__main__":
    os.chdir(Path(__file__).resolve().parent.parent)
    sys.exit(run())
