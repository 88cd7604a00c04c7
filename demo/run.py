"""The demo: 100,000 real positions labelled with climate, land cover, a population proxy and S2 cells.

Its second part reads an archive of generated photos, with hostile files among them. Positions, maps and the archive are
ingested once. Later runs use them again as long as the inputs do not change.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import sys
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from demo import prepare
from demo.archive import archive
from geosieve.images.ingest import IngestConfig, ingest_images
from geosieve.job.main import main
from geosieve.labels.label import LabelConfig, label_attributes
from geosieve.rasters.catalog import CatalogConfig, catalog_rasters
from geosieve.reporting.label_map import draw_label_map
from geosieve.runtime.config import Config, load
from geosieve.runtime.logs import logger
from geosieve.runtime.session import spark_session

INGEST, ARCHIVE = "conf/ingest_images/demo.yaml", "conf/ingest_images/demo_archive.yaml"
CATALOGS = [f"conf/catalog_rasters/{name}.yaml" for name in ("koppen", "igbp", "population_proxy")]
TABLES = Path("tables")
MAP = Path("build/labels_map.png")


def run() -> int:
    """Run the demo, print its results, and draw the map of labels. Return exit code 0."""
    logger().setLevel(logging.WARNING)  # jobs log every stage, which is too much for a demo
    print("preparing positions and the population proxy ...", flush=True)
    prepare.positions()
    prepare.population_proxy()
    archive()
    images = inputs_run([load(IngestConfig, INGEST)])
    rasters = inputs_run(load(CatalogConfig, path) for path in CATALOGS)
    run_id = datetime.now(UTC).strftime("demo-%Y%m%dT%H%M%SZ")
    print("starting Spark ...", flush=True)
    with spark_session("geosieve demo", local=True):
        ingested = job("ingest_images", IngestConfig, ingest_images, INGEST, images)
        for path in CATALOGS:
            job("catalog_rasters", CatalogConfig, catalog_rasters, path, rasters)
        labels = "conf/label_attributes/demo.yaml"
        chosen = [f"images.run={images}", f"rasters.run={rasters}"]
        report = job("label_attributes", LabelConfig, label_attributes, labels, run_id, chosen)
        photos = inputs_run([load(IngestConfig, ARCHIVE)])
        archived = job("ingest_images", IngestConfig, ingest_images, ARCHIVE, photos)
    leaf = next(uri for uri in report["outputs"] if "/labels/" in uri)
    for rejected, n in ingested["rejected"].items():
        print(f"{n} positions were rejected: {rejected}")
    for name, facts in report["details"]["partitions"].items():
        _print_partition(name, facts)
    print(f"\narchive of generated photos: {archived['rows_out']} images, with where their bytes are; refused:")
    for rejected, n in archived["rejected"].items():
        print(f"  {n:>7}  {rejected}: {archived['details']['examples'][rejected][:90]}")
    draw_label_map(leaf, ["tropical", "arid", "temperate", "cold", "polar"], "koppen", MAP)
    print(f"""
labels    {leaf}  ({report["rows_out"]} rows in {report["seconds"]["label"]:.0f} s)
map       {MAP}
report    {leaf}/_report.json

Query them with anything that reads Parquet, for instance DuckDB:

  SELECT r.name AS climate, count(*) AS images
  FROM read_parquet('{leaf}/*.parquet') AS l
  JOIN read_parquet('{TABLES}/regions_of_partition/job=label_attributes/run_id={run_id}/*.parquet') AS r
    ON r.partition = 'koppen' AND r.region = l.koppen
  GROUP BY ALL ORDER BY images DESC""")
    return 0


def inputs_run(configurations: Iterable[Config]) -> str:
    """Run id for ingested inputs: a hash of the configurations, demo/requirements.txt and geosieve's version."""
    digests = [configuration.digest() for configuration in configurations]
    texts = [*digests, Path("demo/requirements.txt").read_text(), version("geosieve")]
    return f"demo-{hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:12]}"


def job(
    name: str, model: Any, job: Callable[[Any], None], config: str, run_id: str, settings: Iterable[str] = ()
) -> dict[str, Any]:
    """Run a job in this Spark session as its file in jobs/ does, and return its report.

    If the run is already committed, return the report of that run; if there was nothing to do, the report that says so.
    If the job fails, exit with its code.
    """
    print(f"{name} --config {config} ...", flush=True)
    printed = io.StringIO()
    with redirect_stdout(printed):
        changes = [option for setting in settings for option in ("--set", setting)]
        code = main(name, model, job, ["--config", config, "--run-id", run_id, *changes])
    report: dict[str, Any] = json.loads(printed.getvalue().splitlines()[-1])
    before = Path(report["outputs"][-1], "_report.json") if report["outputs"] else None
    if report["status"] == "nothing_to_do" and before is not None and before.exists():
        print(f"  done before, as run {run_id}")
        report = json.loads(before.read_text())
    elif report["status"] == "nothing_to_do":
        print("  nothing to do")
    elif code:
        print(report["error"])
        sys.exit(code)
    return report


def _print_partition(name: str, facts: dict[str, Any]) -> None:
    print(f"\n{name}: {facts['labelled']} labelled, {facts['nodata']} without data, {facts['outside']} outside")
    for region, images in list(facts["regions"].items())[:8]:
        print(f"  {images:>7}  {region}")
    further = facts["regions_with_images"] - 8
    if further > 0:
        print(f"           and {further} more")


if __name__ == "__main__":
    os.chdir(Path(__file__).resolve().parent.parent)
    sys.exit(run())
