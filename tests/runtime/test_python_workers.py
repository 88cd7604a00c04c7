"""Python workers on one machine are forked from a daemon that has imported what tasks use."""

from __future__ import annotations

import gc
import os
import sys
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
from pyspark.sql import SparkSession

from geosieve.runtime import daemon


def test_workers_start_with_the_libraries_of_tasks_outside_of_the_garbage_collection(spark: SparkSession) -> None:
    used = daemon.USED_BY_TASKS

    def look(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            present = [name in sys.modules for name in used]
            columns = {"imported": [all(present)] * batch.num_rows, "frozen": [gc.get_freeze_count()] * batch.num_rows}
            yield pa.RecordBatch.from_pydict(columns)

    rows = spark.range(8).repartition(8).mapInArrow(look, "imported boolean, frozen bigint").collect()
    assert all(row.imported and row.frozen > 100_000 for row in rows)


def test_modules_that_came_after_the_daemon_are_found(spark: SparkSession, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "late.zip", "w") as archive:
        archive.writestr("late_module.py", "VALUE = 7")
    (tmp_path / "later_module.py").write_text("VALUE = 8")
    spark.range(1).rdd.map(str).collect()  # a worker runs already
    spark.sparkContext.addPyFile(str(tmp_path / "late.zip"))
    spark.sparkContext.addPyFile(str(tmp_path / "later_module.py"))

    def look(_: int) -> int:
        import late_module
        import later_module

        return int(late_module.VALUE + later_module.VALUE)

    assert spark.sparkContext.parallelize([1], 1).map(look).collect() == [15]


def test_libraries_in_workers_use_as_many_threads_as_a_task_has_cores(spark: SparkSession) -> None:
    """They read the variable when they are loaded; without it, each worker would use all cores of the machine."""
    cores = spark.conf.get("spark.task.cpus", "1")
    found = spark.sparkContext.parallelize(range(4), 4).map(lambda _: os.environ.get("OMP_NUM_THREADS")).collect()
    assert found == [cores] * 4
