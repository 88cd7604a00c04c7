"""Runs jobs as their command lines do, in the test session, in a folder with inputs and tables."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from geosieve.evaluation.config import EvaluateConfig
from geosieve.evaluation.job import evaluate
from geosieve.images.ingest import IngestConfig, ingest_images
from geosieve.job.main import main
from geosieve.labels.label import LabelConfig, label_attributes
from geosieve.overlay.build import OverlayConfig, build_overlay
from geosieve.partitions.building.job import BuildConfig, build_partitions
from geosieve.rasters.catalog import CatalogConfig, catalog_rasters
from geosieve.splits.build import build_splits
from geosieve.splits.config import SplitConfig
from geosieve.training.config import TrainingSetConfig
from geosieve.training.prepare import prepare_training_set

JOBS: dict[str, Any] = {
    "ingest_images": (IngestConfig, ingest_images),
    "catalog_rasters": (CatalogConfig, catalog_rasters),
    "build_partitions": (BuildConfig, build_partitions),
    "label_attributes": (LabelConfig, label_attributes),
    "build_overlay": (OverlayConfig, build_overlay),
    "build_splits": (SplitConfig, build_splits),
    "prepare_training_set": (TrainingSetConfig, prepare_training_set),
    "evaluate": (EvaluateConfig, evaluate),
}
COLUMNS = {"image_id": "id", "lat": "lat", "lon": "lon"}

Report = tuple[int, dict[str, Any]]
"""Exit code and report of a job."""


class Workspace:
    """A folder; its tables lie in `tables`. A session of Spark must be there: fixture `spark`."""

    jobs = JOBS
    """Configuration and function of each job; tests of jobs that import torch for seconds add them."""

    def __init__(self, root: Path) -> None:
        self.root, self.tables = root, root / "tables"
        self.printed = ""
        """What the last job wrote to standard output."""

    def run(self, job: str, config: dict[str, Any], run_id: str = "r1", *options: str) -> Report:
        path = self.root / f"{job}.yaml"
        path.write_text(json.dumps({**config, "output": str(self.tables)}))
        return self.command(job, path, "--run-id", run_id, *options)

    def command(self, job: str, path: Path, *options: str) -> Report:
        """Run a job with the configuration in a file."""
        printed = io.StringIO()
        with redirect_stdout(printed):
            code = main(job, *self.jobs[job], ["--config", str(path), *options])
        self.printed = printed.getvalue()
        return code, json.loads(self.printed.splitlines()[-1])

    def ingest(self, lat: np.ndarray, lon: np.ndarray, source: str = "points") -> None:
        """Points as images `<source>000000` and so on."""
        path = self.root / f"{source}.csv"
        ids = [f"{source}{n:06d}" for n in range(lat.size)]
        pd.DataFrame({"id": ids, "lat": lat, "lon": lon}).to_csv(path, index=False)
        listed = {"name": source, "uri": str(path), "format": "csv", "columns": COLUMNS}
        code, report = self.run("ingest_images", {"source": listed})
        assert code == 0, report["error"]

    def catalog(self, collection: str, uri: Path, **options: Any) -> Report:
        return self.run("catalog_rasters", {"rasters": {"collection": collection, "uri": str(uri), **options}})

    def label(self, partitions: list[Any], run_id: str = "r1", *options: str, **images: Any) -> Report:
        """Label with partitions; `images` goes to the configuration's `images`, such as sources."""
        root = {"root": str(self.tables)}
        config = {"images": {**root, **images}, "rasters": root, "partitions": partitions}
        return self.run("label_attributes", config, run_id, *options)

    def labels(self, run_id: str = "r1") -> pd.DataFrame:
        frame = pq.read_table(self.tables / f"labels/run_id={run_id}", partitioning=None).to_pandas()
        return frame.sort_values("image_id").reset_index(drop=True)
