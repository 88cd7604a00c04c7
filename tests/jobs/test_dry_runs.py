"""`--dry-run --verbose` of every job: it says what would be done, joins nothing and writes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fabricated_rasters import world
from pyspark.sql import SparkSession

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

ROOT = Path(__file__).parents[2]
JOBS: dict[str, Any] = {
    "ingest_images": (IngestConfig, ingest_images),
    "catalog_rasters": (CatalogConfig, catalog_rasters),
    "build_partitions": (BuildConfig, build_partitions),
    "label_attributes": (LabelConfig, label_attributes),
    "build_overlay": (OverlayConfig, build_overlay),
    "build_splits": (SplitConfig, build_splits),
    "evaluate": (EvaluateConfig, evaluate),
}


def configurations(root: Path) -> dict[str, dict[str, Any]]:
    """Of every job; polygons, which Sedona joins, where a job takes partitions."""
    tables = {"root": str(root / "tables")}
    columns = {"image_id": "id", "lat": "lat", "lon": "lon"}
    listed = {"format": "csv", "uri": str(root / "points.csv"), "columns": columns}
    box = {"name": "box", "kind": "polygons", "uri": str(root / "box.geojson"), "name_column": "name"}
    maps = {"rasters": tables, "partitions": [box]}
    split = {"name": "test", "share": 0.5, "balance": {"partition": "box"}}
    return {
        "ingest_images": {"source": {"name": "points", **listed}},
        "catalog_rasters": {"rasters": {"collection": "map", "uri": str(root / "map.tif")}},
        "build_partitions": {"images": tables, "build": {"method": "quadtree", "name": "q", "img_max": 2}},
        "label_attributes": {"images": tables, **maps},
        "build_overlay": {"name": "small", "resolution_arcsec": 7200, **maps},
        "build_splits": {"name": "s", "seed": 1, "images": tables, "labels": tables, "splits": [split]},
        "evaluate": {"truth": listed, "systems": [{"name": "s", **listed}], "places": False, "continent": False},
    }


class World:
    def __init__(self, root: Path, spark: SparkSession) -> None:
        self.root, self.configurations = root, configurations(root)
        self._sql: Any = spark._jsparkSession.sharedState().statusStore()  # type: ignore[attr-defined]

    def run(self, job: str, *options: str) -> int:
        path = self.root / f"{job}.json"
        path.write_text(json.dumps({**self.configurations[job], "output": str(self.root / "tables")}))
        return main(job, *JOBS[job], ["--config", str(path), "--run-id", "r1", *options])

    def executed(self) -> list[str]:
        """Physical plans of all that Spark's SQL has run so far."""
        found = self._sql.executionsList()
        return [found.apply(k).physicalPlanDescription() for k in range(found.size())]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, spark: SparkSession) -> World:
    """Images that are ingested, labelled; a map that is not catalogued."""
    root = tmp_path_factory.mktemp("dry")
    (root / "points.csv").write_text("id,lat,lon\na,1,1\nb,2,2\nc,30,30\nd,1,2\n")
    world(root / "map.tif", 10)
    shape = {"type": "Polygon", "coordinates": [[[0, 0], [9, 0], [9, 9], [0, 9], [0, 0]]]}
    feature = {"type": "Feature", "properties": {"name": "box"}, "geometry": shape}
    (root / "box.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    made = World(root, spark)
    assert made.run("ingest_images") == 0
    assert made.run("label_attributes") == 0
    assert any("Join" in plan for plan in made.executed())  # what a dry run must not do is seen where it is done
    return made


def test_these_are_all_jobs(tmp_path: Path) -> None:
    there = sorted(path.stem for path in (ROOT / "jobs").glob("*.py"))
    assert there == sorted(JOBS) == sorted(configurations(tmp_path))


@pytest.mark.parametrize("job", JOBS)
def test_a_dry_run_joins_and_writes_nothing_and_shows_its_plan(
    small: World, job: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before, executed = sorted(small.root.rglob("*")), len(small.executed())
    done = job in ("ingest_images", "label_attributes")
    capsys.readouterr()
    assert small.run(job, "--dry-run", "--verbose") == 0
    *printed, last = capsys.readouterr().out.splitlines()
    report = json.loads(last)
    assert report["status"] == "dry_run"
    assert [warning for warning in report["warnings"] if "do nothing" in warning] == report["warnings"]
    assert len(report["warnings"]) == done
    assert not [plan for plan in small.executed()[executed:] if "Join" in plan]
    added = set(small.root.rglob("*")) - set(before)
    assert {path.name for path in added} <= {f"{job}.json"}
    plans = [line for line in printed if line.startswith(("plan of ", "no plan: "))]
    assert plans == ["no plan: this job has no frames before it has computed what they depend on"] or all(
        line.startswith("plan of ") for line in plans
    )
    assert (plans[0].startswith("no plan")) == (job == "build_overlay")
