"""Runs `ingest_images` as its command line does, in the test session."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from pyspark.sql import SparkSession

from geosieve.images.ingest import ingest_images
from geosieve.images.sources import IngestConfig
from geosieve.job.main import main
from geosieve.tables.read import committed_runs, read_runs
from geosieve.tables.schemas import IMAGES, REJECTS

COLUMNS = {"image_id": "id", "lat": "latitude", "lon": "longitude"}


class Ingest:
    """One root folder of tables and the runs into it."""

    def __init__(self, spark: SparkSession, folder: Path, capsys: Any) -> None:
        self.spark, self.folder, self.root, self.capsys = spark, folder, folder / "tables", capsys

    def __call__(
        self, uri: Path | str, *arguments: str, format: str = "csv", run_id: str = "r1", **source: Any
    ) -> tuple[int, dict[str, Any]]:
        """Run the job on a source; returns the exit code and the report."""
        columns = {} if format == "photos" else {"columns": COLUMNS}
        content = {"name": "test", "uri": str(uri), "format": format, **columns, **source}
        config = self.folder / "config.yaml"
        config.write_text(yaml.safe_dump({"source": content, "output": str(self.root)}))
        code = main(
            "ingest_images", IngestConfig, ingest_images, ["--config", str(config), "--run-id", run_id, *arguments]
        )
        return code, json.loads(self.capsys.readouterr().out.strip().splitlines()[-1])

    def images(self, run_id: str = "r1") -> dict[str, Any]:
        return {row.image_id: row for row in self._rows(IMAGES, run_id)}

    def rejects(self, run_id: str = "r1") -> list[Any]:
        return sorted(self._rows(REJECTS, run_id), key=str)

    def _rows(self, table: Any, run_id: str) -> list[Any]:
        runs = [run for run in committed_runs(self.spark, str(self.root), table) if run.run_id == run_id]
        return read_runs(self.spark, str(self.root), table, runs).collect()

    def committed(self) -> list[str]:
        return [run.run_id for run in committed_runs(self.spark, str(self.root), IMAGES)]
