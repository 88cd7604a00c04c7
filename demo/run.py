"""The demo: 100,000 real positions labelled with climate, land cover, a population proxy and S2 cells."""

from __future__ import annotations

import io
import json
import logging
import os
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from demo import prepare
from geosieve.images.ingest import IngestConfig, ingest_images
from geosieve.job.main import main
from geosieve.labels.label import LabelConfig, label_attributes
from geosieve.rasters.catalog import CatalogConfig, catalog_rasters
from geosieve.reporting.label_map import draw_label_map
from geosieve.runtime.logs import logger
from geosieve.runtime.session import spark_session

TABLES = Path("tables")
MAP = Path("build/labels_map.png")


def run() -> int:
    logger().setLevel(logging.WARNING)  # a person reads this; jobs by themselves log every stage
    print("preparing positions and the population proxy ...", flush=True)
    prepare.positions()
    prepare.population_proxy()
    run_id = datetime.now(UTC).strftime("demo-%Y%m%dT%H%M%SZ")
    print("starting Spark ...", flush=True)
    with spark_session("geosieve demo", local=True):
        ingested = job("ingest_images", IngestConfig, ingest_images, "conf/ingest_images/demo.yaml", run_id)
        for name in ("koppen", "igbp", "population_proxy"):
            job("catalog_rasters", CatalogConfig, catalog_rasters, f"conf/catalog_rasters/{name}.yaml", run_id)
        report = job("label_attributes", LabelConfig, label_attributes, "conf/label_attributes/demo.yaml", run_id)
    leaf = next(uri for uri in report["outputs"] if "/labels/" in uri)
    for rejected, n in ingested["rejected"].items():
        print(f"{n} positions were rejected: {rejected}")
    for name, facts in report["details"]["partitions"].items():
        _print_partition(name, facts)
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


def job(name: str, model: Any, job: Callable[[Any], None], config: str, run_id: str) -> dict[str, Any]:
    """Run a job as its file in jobs/ does, in this session; stop at the first that fails."""
    print(f"{name} --config {config} ...", flush=True)
    printed = io.StringIO()
    with redirect_stdout(printed):
        code = main(name, model, job, ["--config", config, "--run-id", run_id])
    report: dict[str, Any] = json.loads(printed.getvalue().splitlines()[-1])
    if code:
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
