"""Small photos with positions, authors and licences, and committed chips for them. Pictures are SYNTHETIC."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from committed import commit
from PIL import Image
from workspace import JOBS, Report, Workspace

from geosieve.overhead.pairs.build import build_pairs
from geosieve.overhead.pairs.config import PairsConfig
from geosieve.reporting.pairs import report_pairs
from geosieve.reporting.pairs_config import ReportPairsConfig
from geosieve.tables.schemas import CHIPS, REJECTS

COLUMNS = {name: name for name in ("image_id", "lat", "lon", "author", "licence", "captured_at")}
STRIP = "s3://strips/AOI_2_Vegas/one.tif"


def picture(seed: int, width: int, height: int) -> Image.Image:
    """Smooth colours that differ from corner to corner."""
    rough = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(rough).resize((width, height), Image.Resampling.BICUBIC)


def jpeg(of: Image.Image, orientation: int = 1) -> bytes:
    exif = Image.Exif()
    exif[274] = orientation
    exif[315] = "a name that must not travel"
    stream = io.BytesIO()
    of.save(stream, "JPEG", quality=92, exif=exif.tobytes())
    return stream.getvalue()


def chip(image_id: str, lat: float, lon: float, **values: Any) -> dict[str, Any]:
    """A row of `chips`: a PNG of 12 × 12 pixels, whose colour depends on the id."""
    stream = io.BytesIO()
    colour = tuple(np.random.default_rng(sum(image_id.encode())).integers(0, 256, 3).tolist())
    Image.new("RGB", (12, 12), colour).save(stream, "PNG")
    row = {
        **{"source": "photos", "image_id": image_id, "view": "chip", "lat": float(lat), "lon": float(lon)},
        **{"raster_source": "worldview", "raster_uri": STRIP, "strip_id": "one", "epsg": 32611, "utm_zone": "11N"},
        **{
            "transform": dict(zip("abcdef", (0.3, 0.0, 6e5, 0.0, -0.3, 4e6), strict=True)),
            "width": 12,
            "height": 12,
            "resolution_m": 0.3,
        },
        **{"orientation": "raster", "empty_share": 0.0, "captured_at": datetime(2015, 10, 22), "format": "png"},
        "chip": stream.getvalue(),
    }
    return {**row, **values}


class Pairs(Workspace):
    """A folder in which photos are catalogued, chips published and pairs built."""

    jobs = {
        **JOBS,
        "build_pairs": (PairsConfig, build_pairs),
        "report_pairs": (ReportPairsConfig, report_pairs),
    }

    def photos(self, source: str, rows: pd.DataFrame, files: dict[str, bytes]) -> None:
        """Catalogue a list and the files of its photos, by their ids."""
        listed: dict[str, Any] = {"name": source, "uri": str(self.root / f"{source}.csv"), "format": "csv"}
        rows.to_csv(self.root / f"{source}.csv", index=False)
        folder = self.root / source
        folder.mkdir()
        for name, content in files.items():
            (folder / f"{name}.jpg").write_bytes(content)
        listed |= {"columns": COLUMNS, "files": {"uri": str(folder), "match": "stem"}}
        code, report = self.run("ingest_images", {"source": listed})
        assert code == 0, report["error"]
        assert report["rows_out"] == len(rows), report["rejected"]

    def chips(
        self, name: str, rows: Sequence[dict[str, Any]], run_id: str = "r1", rejects: Iterable[tuple[str, str]] = ()
    ) -> None:
        """Commit a run of `chips`, with rejects (id, error class), as cut_chips does."""
        commit(self.tables, CHIPS, {"chip_set": name, "run_id": run_id}, rows)
        refused = [{"id": id_, "stage": "cut", "error_class": kind, "message": "in words"} for id_, kind in rejects]
        commit(self.tables, REJECTS, {"job": "cut_chips", "part": name, "run_id": run_id}, refused)

    def pair(self, name: str, run_id: str = "r1", *options: str, **change: Any) -> Report:
        root = str(self.tables)
        config = {"name": name, "images": {"root": root}, "chips": {"root": root, "name": "city"}, "licences": "any"}
        return self.run("build_pairs", {**config, **change}, run_id, *options)

    def table(self, name: str, values: str, run_id: str = "r1") -> pd.DataFrame:
        return pq.read_table(self.tables / name / values / f"run_id={run_id}", partitioning=None).to_pandas()

    def pairs(self, name: str, run_id: str = "r1") -> pd.DataFrame:
        return self.table("pairs", f"pair_set={name}", run_id).sort_values("image_id", ignore_index=True)

    def rejects(self, name: str, run_id: str = "r1") -> dict[str, str]:
        """Error class by id."""
        frame = self.table("rejects", f"job=build_pairs/part={name}", run_id)
        return dict(zip(frame["id"], frame["error_class"], strict=True))
