"""A small world with answers: an overlay of boxes, photographs with hostile names, and probabilities for them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from box_partitions import box_partition
from PIL import Image
from pyspark.sql import SparkSession
from workspace import JOBS, Report, Workspace

from geosieve.inference.rank_regions import rank_regions
from geosieve.inference.ranking_config import RankConfig
from geosieve.overlay.atoms import Overlay
from geosieve.overlay.read import OverlayInput, PublishedOverlay, read_published
from geosieve.reporting.archive import report_archive
from geosieve.reporting.archive_config import ReportConfig
from geosieve.reporting.export import export_regions
from geosieve.reporting.export_config import ExportConfig

BANDS = {f"band{k}": (-180.0, -90.0 + 18 * k, 180.0, -72.0 + 18 * k) for k in range(10)}
SIDES = {f"side{k}": (-180.0 + 60 * k, -90.0, -120.0 + 60 * k, 90.0) for k in range(6)}
HOSTILE = (
    "a</script><script>window.hacked=1</script>.jpg",
    'b" onmouseover="window.hacked=1" x=".jpg',
    "c<img src=x onerror=window.hacked=1>.jpg",
    "d\u202egpj.exe.jpg",
    "e&lt;b&gt;'`${window.hacked=1}.jpg",
    "f\u2028\\u003c!--.jpg",
    "שלום.jpg",
)


class World(Workspace):
    """An overlay of 60 atoms of boxes, and what makes answers over it."""

    def __init__(self, root: Path, spark: SparkSession) -> None:
        super().__init__(root)
        self.spark = spark
        self.jobs = {
            **JOBS,
            "rank_regions": (RankConfig, rank_regions),
            "report_archive": (ReportConfig, report_archive),
            "export_regions": (ExportConfig, export_regions),
        }
        partitions = [box_partition(root, "bands", BANDS), box_partition(root, "sides", SIDES)]
        overlay = {"name": "world", "rasters": {"root": str(self.tables)}, "resolution_arcsec": 7200}
        self.done(self.run("build_overlay", {**overlay, "partitions": partitions}))
        self.published: PublishedOverlay = read_published(spark, self.named)
        self.overlay: Overlay = self.published.overlay()
        self.hashes = {partition.name: partition.digest for partition in self.overlay.partitions}

    @property
    def named(self) -> OverlayInput:
        return OverlayInput(root=str(self.tables), name="world")

    @staticmethod
    def done(found: Report) -> dict[str, Any]:
        code, report = found
        assert code == 0, report["error"]
        return report

    def photographs(self, source: str, names: tuple[str, ...]) -> None:
        """Photographs of these names, each of one colour, catalogued."""
        folder = self.root / source
        for k, name in enumerate(names):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            stream = io.BytesIO()
            Image.new("RGB", (64, 48), (40 * k % 256, 90, 200)).save(stream, "JPEG", quality=95)
            path.write_bytes(stream.getvalue())
        self.done(self.run("ingest_images", {"source": {"name": source, "uri": str(folder), "format": "photos"}}))

    def rank(self, ranking: str, run: str, source: str, ids: list[str], p: Any, **change: Any) -> dict[str, Any]:
        """Rank images for their probabilities of bands, (images, 10), and of sides, (images, 6)."""
        folder = self.root / f"given-{ranking}-{run}"
        folder.mkdir()
        for name, values in zip(("bands", "sides"), p, strict=True):
            frame = pd.DataFrame({"source": source, "image_id": ids, "predictor": name})
            columns = {column: pa.array(frame[column]) for column in frame}
            columns["partition_hash"] = pa.array([self.hashes[name]] * len(ids))
            columns["probabilities"] = pa.array(list(np.asarray(values, np.float64)), pa.list_(pa.float64()))
            pq.write_table(pa.table(columns), folder / f"{name}.parquet")
        config = {
            "name": ranking,
            "overlay": {"root": str(self.tables), "name": "world"},
            "members": {"bands": {"partition": "bands"}, "sides": {"partition": "sides"}},
            "predictions": [{"uri": str(folder)}],
            **change,
        }
        return self.done(self.run("rank_regions", config, run))

    def page(self, name: str, ranking: str, *options: str, **change: Any) -> Report:
        """Run `report_archive`; the page is `name` below the root."""
        answers = {"root": str(self.tables), "ranking": ranking, **change.pop("answers", {})}
        path = self.root / f"{name}.json"
        path.write_text(json.dumps({"answers": answers, "output": str(self.root / name), **change}))
        return self.command("report_archive", path, *options)

    def export(self, name: str, ranking: str, *options: str, **change: Any) -> Report:
        """Run `export_regions`; the file is `name` below the root."""
        tables = str(self.tables)
        config = {"answers": {"root": tables, "ranking": ranking}, "overlay": {"root": tables, "name": "world"}}
        path = self.root / f"{name}.json"
        path.write_text(json.dumps({**config, "output": str(self.root / name), **change}))
        return self.command("export_regions", path, *options)


def data_of(page: Path) -> Any:
    """The data block of a page."""
    text = page.read_text("utf-8")
    start = text.index('<script type="application/json" id="data">') + len('<script type="application/json" id="data">')
    return json.loads(text[start : text.index("</script>", start)])
