"""Driver memory per photo, raster file, manifest entry, task, region and evaluated image.

Each step runs at two sizes. Its memory is what remains allocated afterwards: in Python (objects, numpy, Arrow) and in
the JVM's heap after a garbage collection. The figure per unit is the difference of memory divided by the difference of
sizes. Nothing is extrapolated.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import tempfile
import tracemalloc
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from benchmarks.list_photos import make
from benchmarks.many_tiles import collection, near_tiles
from benchmarks.timing import bar
from geosieve.evaluation.scoring import Scorer, collect_scores
from geosieve.images.photo_rows import PhotoLimits
from geosieve.images.photos import list_photos, photo_files, photo_folder, read_photos
from geosieve.labels.summary import LabelCounter
from geosieve.runtime.files import Files
from geosieve.runtime.session import spark_session
from geosieve.tables.read import committed_runs, read_runs
from geosieve.tables.schemas import PARTITIONS

Step = Callable[[int], Any]


def per_unit(spark: SparkSession, step: Step, few: int, many: int) -> tuple[float, float]:
    """Bytes in Python and in the JVM that each further unit of the step's result needs."""
    step(few)  # load classes and fill caches before measuring
    left = []
    for size in (few, many):
        before = held(spark)
        result = step(size)
        left.append([after - start for after, start in zip(held(spark), before, strict=True)])
        del result
    python, jvm = ((large - small) / (many - few) for small, large in zip(*left, strict=True))
    return python, jvm


def held(spark: SparkSession) -> tuple[int, int]:
    """Bytes that remain allocated in Python and, after a garbage collection, in the heap of the JVM."""
    gc.collect()
    jvm: Any = spark._jvm
    for _ in range(3):
        jvm.System.gc()
    heap = jvm.java.lang.management.ManagementFactory.getMemoryMXBean().getHeapMemoryUsage().getUsed()
    return tracemalloc.get_traced_memory()[0] + pa.total_allocated_bytes(), int(heap)


def photos(spark: SparkSession, root: Path) -> Step:
    """The list of photos, and a planned read, for which Spark lists the folder itself."""

    def step(n: int) -> Any:
        folder = root / f"photos{n}"
        if not folder.exists():
            make(folder, "jpg", n // 1_000)
        listing = list_photos(spark, photo_folder(spark, str(folder)), PhotoLimits())
        files = photo_files(spark, listing, PhotoLimits())
        frame = read_photos(files, listing.folder, PhotoLimits(), fingerprint=False)
        frame._jdf.queryExecution().executedPlan()
        return listing, frame

    return step


def listed(spark: SparkSession, root: Path) -> Step:
    """Names and sizes of files, listed as `catalog_rasters` does."""
    return lambda n: Files(spark).walk(str(root / f"photos{n}"))


def manifests(spark: SparkSession, root: Path) -> Step:
    """A committed run of n files: its manifest, and Spark's index of the files."""

    def step(n: int) -> Any:
        leaf = root / f"run{n}/{PARTITIONS.name}/job=x/run_id=r1"
        if not leaf.exists():
            leaf.mkdir(parents=True)
            one = root / "one.parquet"
            pq.write_table(pa.table({column.name: pa.array(["x"]) for column in PARTITIONS.columns}), one)
            write = uuid.uuid4()
            names = [f"part-{k:05d}-{write}-c000.zstd.parquet" for k in range(n)]
            for name in names:
                os.link(one, leaf / name)
            entries = [{"name": name, "bytes": one.stat().st_size} for name in names]
            (leaf / "_SUCCESS").write_text(json.dumps({"rows": n, "committed_at": "2026", "files": entries}))
        runs = committed_runs(spark, str(root / f"run{n}"), PARTITIONS)
        return runs, read_runs(spark, str(root / f"run{n}"), PARTITIONS, runs)

    return step


def tasks(spark: SparkSession) -> Step:
    """What Spark keeps of n completed tasks."""
    return lambda n: spark.range(0, n, 1, n).count()


def counters(spark: SparkSession) -> Step:
    """Label counts of a partition, added up over 50 tasks."""

    def step(regions: int) -> Any:
        parameter: Any = LabelCounter(spark, ["p"])._found.accum_param  # type: ignore[attr-defined]
        held: Any = {}
        for _ in range(50):
            held = parameter.addInPlace(held, {"p": (np.arange(regions), np.ones(regions, np.int64))})
        return held

    return step


def evaluated(spark: SparkSession, systems: int) -> Step:
    """Scores of n images for each of the systems, with one stratum."""

    def step(n: int) -> Any:
        ids = spark.range(n).withColumn("image_id", F.col("id").cast("string"))
        truth = ids.selectExpr("image_id", "id % 170 - 85D AS lat", "id % 350 - 175D AS lon", "'x' AS stratum_s")
        nothing = {"area_km2": F.lit(None).cast("double"), "error_class": F.lit(None).cast("string")}
        answers = truth.select("image_id", "lat", "lon").withColumns(nothing)
        scorer = Scorer({"s": ("x",)}, (False,) * systems, False, False)
        return collect_scores(truth, {f"s{k}": answers for k in range(systems)}, scorer, {})

    return step


def main() -> int:
    """Return exit code 1 if a bar is missed."""
    os.environ.setdefault("PYSPARK_SUBMIT_ARGS", "--master local[2] --driver-memory 2g pyspark-shell")
    near = near_tiles()
    with tempfile.TemporaryDirectory() as work, spark_session("driver_memory", local=False) as spark:
        root = Path(work)
        steps: list[tuple[str, Step, int, int]] = [
            ("photo, listed and planned to be read", photos(spark, root), 10_000, 50_000),
            ("file, listed by name", listed(spark, root), 10_000, 50_000),
            ("raster file of a collection", lambda n: collection(near, n), 5_000, 25_000),
            ("file of a run that is read", manifests(spark, root), 10_000, 50_000),
            ("task that has ended", tasks(spark), 1_000, 5_000),
            ("region of a counter", counters(spark), 10_000, 50_000),
            ("image evaluated, 1 system", evaluated(spark, 1), 50_000, 150_000),
            ("image evaluated, 3 systems", evaluated(spark, 3), 50_000, 150_000),
        ]
        tracemalloc.start()
        found = {}
        for name, step, few, many in steps:
            found[name] = per_unit(spark, step, few, many)
            python, jvm = found[name]
            print(f"  {name}: Python {python:,.0f} bytes, JVM {jvm:,.0f} bytes", flush=True)
        tracemalloc.stop()
    met = [
        bar("a raster file on the driver", found["raster file of a collection"][0], 600, "bytes"),
        bar("a region of a counter", found["region of a counter"][0], 20, "bytes"),
        bar("an image evaluated by 3 systems", found["image evaluated, 3 systems"][0], 60 + 3 * 30, "bytes"),
    ]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
