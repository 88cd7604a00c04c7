"""What crosses from tasks to the driver must not grow with the rows: counted for n rows and for 10 n.

Counted are the bytes of all tasks' results, accumulators included, as Spark's driver received them, and what is
broadcast from Python. The rows repeat the same places, authors and classes, so that whatever is listed once a region,
a class or a file is as long for n rows as for 10 n. Only `evaluate` collects a short row of numbers of each image.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fabricated_rasters import world
from PIL import Image
from pyspark import SparkContext
from pyspark.sql import SparkSession
from workspace import COLUMNS, Workspace

from geosieve.labels.summary import LabelCounter

FEW, MANY = 3_000, 30_000


class Driver(Workspace):
    """Counts the bytes that come to the driver and go out by broadcast while jobs run."""

    def __init__(self, spark: SparkSession, root: Path) -> None:
        super().__init__(root)
        self.spark = spark
        self.broadcast = self.runs = 0

    def moved(self, job: str, **config: Any) -> int:
        """Bytes that a job moved to or from the driver."""
        before, self.broadcast = self._results(), 0
        self.runs += 1
        code, report = self.run(job, config, f"r{self.runs}")
        assert code == 0, report["error"]
        after = self._results()
        # Spark forgets the oldest stages of a long session: those of this job are all there if an older one is.
        assert not before or before.keys() & after.keys()
        return sum(after[stage] for stage in after.keys() - before.keys()) + self.broadcast

    def _results(self) -> dict[tuple[int, int], int]:
        """Bytes of the results of all tasks, by stage and attempt, of the stages that Spark remembers."""
        jvm: Any = self.spark._jvm
        context: Any = self.spark.sparkContext._jsc.sc()
        context.listenerBus().waitUntilEmpty()
        none = self.spark.sparkContext._gateway.new_array(jvm.double, 0)
        stages = context.statusStore().stageList(None, False, False, none, jvm.java.util.ArrayList()).iterator()
        results = {}
        while stages.hasNext():
            stage = stages.next()
            results[stage.stageId(), stage.attemptId()] = int(stage.resultSize())
        return results


@pytest.fixture
def driver(spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    counted = Driver(spark, tmp_path)
    whole = SparkContext.broadcast

    def broadcast(context: SparkContext, value: Any) -> Any:
        counted.broadcast += len(pickle.dumps(value))
        return whole(context, value)

    monkeypatch.setattr(SparkContext, "broadcast", broadcast)
    # What Spark broadcasts by itself is at most 10 MB a join; as many tasks for many files as for few.
    settings = {"spark.sql.autoBroadcastJoinThreshold": "-1", "spark.sql.files.openCostInBytes": "0"}
    for key, value in settings.items():
        spark.conf.set(key, value)
    yield counted
    for key in settings:
        spark.conf.unset(key)


def listed(folder: Path, rows: int, refused: int = 50) -> Path:
    """A list of images: 400 places, 20 authors, a sequence for every 5 images; every 50th row is refused, or none."""
    rng = np.random.default_rng(0)
    places = np.column_stack([np.degrees(np.arcsin(rng.uniform(-1, 1, 400))), rng.uniform(-180, 180, 400)]).round(6)
    k = np.arange(rows)
    frame = pd.DataFrame(
        {
            "id": [f"i{n:06d}" for n in k],
            "lat": places[k % 400, 0],
            "lon": places[k % 400, 1],
            "author": np.char.add("a", (k // 5 % 20).astype(str)),
            "sequence": np.char.add("s", (k // 5).astype(str)),
        }
    )
    if refused:
        frame.loc[::refused, "lat"] = 95 + frame.index[::refused] / 1e6  # no two refused rows are alike
    path = folder / f"images{rows}.csv"
    frame.to_csv(path, index=False)
    return path


def source_of(path: Path, name: str) -> dict[str, Any]:
    columns = {**COLUMNS, "author": "author", "sequence": "sequence"}
    return {"source": {"name": name, "format": "csv", "uri": str(path), "columns": columns}}


def test_ingest_of_photos(driver: Driver) -> None:
    """Of each photo Spark's listing holds the name and the size, which no task sends; no more may come."""
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "JPEG")
    moved = []
    for photos in (40, 400):
        folder = driver.root / f"photos{photos}"
        folder.mkdir()
        for k in range(photos):
            (folder / f"{k:04d}.jpg").write_bytes(picture.getvalue() if k % 2 else b"no image")
        source = {"name": f"photos{photos}", "format": "photos", "uri": str(folder)}
        moved.append(driver.moved("ingest_images", source=source))
    assert moved[1] < 1.1 * moved[0], moved


def test_ingest_labels_and_splits_of_lists(driver: Driver) -> None:
    path = world(driver.root / "map.tif", 1, high=9)
    driver.moved("catalog_rasters", rasters={"collection": "map", "uri": str(path)})
    tables = str(driver.root / "tables")
    classes = [{"name": f"class {value}", "values": [value]} for value in range(1, 9)]
    partitions = [
        {"name": "cover", "kind": "classes", "collection": "map", "classes": classes},
        {"name": "cells", "kind": "s2", "level": 12},
    ]
    splits = [
        {"name": "test", "share": 0.2},
        {"name": "train", "share": 0.8, "apart_km": 1},
    ]
    moved: dict[str, list[int]] = {"ingest_images": [], "label_attributes": [], "build_splits": []}
    for rows in (FEW, MANY):
        name = f"n{rows}"
        images, draw = {"root": tables, "sources": [name]}, {"name": name, "draw": "group", "seed": 0}
        configs = {
            "ingest_images": source_of(listed(driver.root, rows), name),
            "label_attributes": {"images": images, "rasters": {"root": tables}, "partitions": partitions},
            "build_splits": {**draw, "images": images, "splits": splits, "groups": ["author", "sequence"]},
        }
        for job, config in configs.items():
            moved[job].append(driver.moved(job, **config))
    assert {job: many < 1.1 * few for job, (few, many) in moved.items()} == dict.fromkeys(moved, True), moved


def test_evaluation_collects_a_short_row_of_an_image(driver: Driver) -> None:
    """60 bytes of each image and 30 of each system's answer, as `MAX_IMAGES` reckons with."""
    moved = []
    for rows in (FEW, MANY):
        uri = str(listed(driver.root, rows, refused=0))
        one = {"format": "csv", "uri": uri, "columns": COLUMNS}
        systems = [{**one, "name": name} for name in ("first", "second")]
        moved.append(driver.moved("evaluate", truth=one, systems=systems, samples=100, places=False, continent=False))
    assert (moved[1] - moved[0]) / (MANY - FEW) < 60 + 2 * 30


def test_counters_hold_each_region_once_however_many_tasks_add_to_them(spark: SparkSession) -> None:
    counter = LabelCounter(spark, ["p"])
    add: Callable[[Any, Any], Any] = counter._found.accum_param.addInPlace  # type: ignore[attr-defined]
    held: Any = {}
    for task in range(200):
        labels = np.arange(task % 7, 1000, dtype=np.int64)
        held = add(held, {"p": (labels, np.full(labels.size, 3))})
    labels, images = held["p"]
    assert labels.tolist() == list(range(1000))
    assert images.sum() == 3 * sum(1000 - task % 7 for task in range(200))
    assert len(pickle.dumps(held)) < 20 * 1000
