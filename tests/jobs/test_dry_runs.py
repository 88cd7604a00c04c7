"""`--dry-run --verbose` of every job: it says what would be done, joins nothing and writes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fabricated_rasters import world
from pyspark.sql import SparkSession
from workspace import COLUMNS, JOBS, Report, Workspace

ROOT = Path(__file__).parents[2]
ELSEWHERE = (
    *("compact", "export_regions", "fit_ensemble", "geolocate_archive", "harvest_flickr", "rank_regions"),
    *(
        "register_tables",
        "report_archive",
        "retire_runs",
        "train_predictor",
        "atom_cells",
        "prepare_strips",
        "cut_chips",
    ),
    *("build_pairs", "report_pairs"),
)
"""Jobs whose dry runs are tested with their worlds, which take long to make."""


def configurations(root: Path) -> dict[str, dict[str, Any]]:
    """Of every job; polygons, which Sedona joins, where a job takes partitions."""
    tables = {"root": str(root / "tables")}
    listed = {"format": "csv", "uri": str(root / "points.csv"), "columns": COLUMNS}
    box = {"name": "box", "kind": "polygons", "uri": str(root / "box.geojson"), "name_column": "name"}
    maps = {"rasters": tables, "partitions": [box]}
    split = {"name": "test", "share": 1, "balance": {"partition": "box"}}
    return {
        "ingest_images": {"source": {"name": "points", **listed}},
        "catalog_rasters": {"rasters": {"collection": "map", "uri": str(root / "map.tif")}},
        "build_partitions": {"images": tables, "build": {"method": "quadtree", "name": "q", "img_max": 2}},
        "label_attributes": {"images": tables, **maps},
        "build_overlay": {"name": "small", "resolution_arcsec": 7200, **maps},
        "build_splits": {"name": "s", "seed": 1, "images": tables, "labels": tables, "splits": [split]},
        "prepare_training_set": {
            **{"name": "t", "seed": 1, "images": tables, "labels": {**tables, "partitions": ["box"]}},
            "splits": {**tables, "name": "s"},
        },
        "evaluate": {"truth": listed, "systems": [{"name": "s", **listed}], "places": False, "continent": False},
    }


class World(Workspace):
    """Runs every job with its one configuration."""

    def __init__(self, root: Path, spark: SparkSession) -> None:
        super().__init__(root)
        self.configurations = configurations(root)
        self._sql: Any = spark._jsparkSession.sharedState().statusStore()  # type: ignore[attr-defined]
        self._bus: Any = spark.sparkContext._jsc.sc().listenerBus()  # type: ignore[attr-defined]

    def try_out(self, job: str, *options: str) -> Report:
        return self.run(job, self.configurations[job], "r1", *options)

    def last(self) -> int:
        """Number of the last query that Spark's SQL has run."""
        self._bus.waitUntilEmpty()
        return int(self._sql.executionsList(self._sql.executionsCount() - 1, 1).head().executionId())

    def executed(self, after: int) -> list[str]:
        """Physical plans of the queries since that number. In a long session Spark has forgotten the oldest."""
        found = (self._sql.execution(number) for number in range(after + 1, self.last() + 1))
        return [query.get().physicalPlanDescription() for query in found]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, spark: SparkSession) -> World:
    """Images that are ingested, labelled and split; a map that is not catalogued."""
    root = tmp_path_factory.mktemp("dry")
    (root / "points.csv").write_text("id,lat,lon\na,1,1\nb,2,2\nc,30,30\nd,1,2\n")
    world(root / "map.tif", 10)
    shape = {"type": "Polygon", "coordinates": [[[0, 0], [9, 0], [9, 9], [0, 9], [0, 0]]]}
    feature = {"type": "Feature", "properties": {"name": "box"}, "geometry": shape}
    (root / "box.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    made = World(root, spark)
    spark.range(1).collect()
    before = made.last()
    assert made.try_out("ingest_images")[0] == 0
    assert made.try_out("label_attributes")[0] == 0
    assert made.try_out("build_splits")[0] == 0
    assert any("Join" in plan for plan in made.executed(before))  # what a dry run must not do is seen where it is done
    return made


def test_these_are_all_jobs(tmp_path: Path) -> None:
    there = sorted(path.stem for path in (ROOT / "jobs").glob("*.py"))
    assert there == sorted([*JOBS, *ELSEWHERE]) and sorted(JOBS) == sorted(configurations(tmp_path))


@pytest.mark.parametrize("job", JOBS)
def test_a_dry_run_joins_and_writes_nothing_and_shows_its_plan(small: World, job: str) -> None:
    before, last = sorted(small.root.rglob("*")), small.last()
    done = job in ("ingest_images", "label_attributes", "build_splits")
    code, report = small.try_out(job, "--dry-run", "--verbose")
    assert code == 0
    printed = small.printed.splitlines()[:-1]
    assert report["status"] == "dry_run"
    assert [warning for warning in report["warnings"] if "do nothing" in warning] == report["warnings"]
    assert len(report["warnings"]) == done
    assert not [plan for plan in small.executed(last) if "Join" in plan]
    added = set(small.root.rglob("*")) - set(before)
    assert {path.name for path in added} <= {f"{job}.yaml"}
    plans = [line for line in printed if line.startswith(("plan of ", "no plan: "))]
    assert plans == ["no plan: this job has no frames before it has computed what they depend on"] or all(
        line.startswith("plan of ") for line in plans
    )
    assert (plans[0].startswith("no plan")) == (job == "build_overlay")
