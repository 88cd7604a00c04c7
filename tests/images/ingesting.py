"""Runs `ingest_images` as its command line does, in the test session."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession
from workspace import Report, Workspace

from geosieve.tables.read import committed_runs, read_runs
from geosieve.tables.schemas import IMAGES, REJECTS

COLUMNS = {"image_id": "id", "lat": "latitude", "lon": "longitude"}


class Ingest(Workspace):
    """Ingests sources, and reads the runs back."""

    def __init__(self, spark: SparkSession, root: Path) -> None:
        super().__init__(root)
        self.spark = spark

    def __call__(
        self, uri: Path | str, *arguments: str, format: str = "csv", run_id: str = "r1", **source: Any
    ) -> Report:
        """Run the job on a source; returns the exit code and the report."""
        columns = {} if format == "photos" else {"columns": COLUMNS}
        content = {"name": "test", "uri": str(uri), "format": format, **columns, **source}
        return self.run("ingest_images", {"source": content}, run_id, *arguments)

    def images(self, run_id: str = "r1") -> dict[str, Any]:
        return {row.image_id: row for row in self._rows(IMAGES, run_id)}

    def rejects(self, run_id: str = "r1") -> list[Any]:
        return sorted(self._rows(REJECTS, run_id), key=str)

    def _rows(self, table: Any, run_id: str) -> list[Any]:
        runs = [run for run in committed_runs(self.spark, str(self.tables), table) if run.run_id == run_id]
        return read_runs(self.spark, str(self.tables), table, runs).collect()

    def committed(self) -> list[str]:
        return [run.run_id for run in committed_runs(self.spark, str(self.tables), IMAGES)]
