"""The whole labelling job, 4.7 million points x three 30-arc-second maps and S2 cells, against a floor; two cores."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from benchmarks.fabricate import FOLDER, clustered_points, landscan_like
from benchmarks.maps import koppen, plain_loop
from benchmarks.timing import REPEATS, bar

POINTS, FEWER_POINTS = 4_700_000, 1_175_000
MAPS = ("landscan_like_1", "landscan_like_2", "koppen")
RUN = "benchmark"
SPARK_SUBMIT = [str(Path(sys.executable).with_name("spark-submit")), "--master", "local[2]", "--driver-memory", "2g"]


def job(name: str, config: dict[str, Any], run_id: str) -> tuple[dict[str, Any], float]:
    """Run jobs/<name>.py with spark-submit; its report, and the peak memory of its largest Python worker in GiB."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"{name}.yaml")
        path.write_text(yaml.safe_dump(config))
        command = [*SPARK_SUBMIT, f"jobs/{name}.py", "--config", str(path), "--run-id", run_id]
        environment = {**os.environ, "PYSPARK_PYTHON": sys.executable}
        with (
            Path(folder, "log").open("w+") as log,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment) as process,
            _watched(process.pid) as peak,
        ):
            lines = process.communicate()[0].splitlines()
            if process.returncode not in (0, 99):  # 99: the run is there already
                log.seek(0)
                raise SystemExit(f"{name} failed:\n{log.read()[-4000:]}")
    return json.loads(lines[-1]), max(peak.values(), default=0) / 2**30


@contextmanager
def _watched(pid: int) -> Iterator[dict[int, int]]:
    """Peak resident bytes by process id of the Python workers below a process, while the block runs."""
    peak: dict[int, int] = {}
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            for child in psutil.Process(pid).children(recursive=True) if psutil.pid_exists(pid) else ():
                try:
                    if "pyspark.daemon" in child.cmdline():
                        peak[child.pid] = max(peak.get(child.pid, 0), child.memory_info().rss)
                except psutil.NoSuchProcess:
                    continue

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def prepare(n: int) -> Path:
    """Tables with n synthetic images and the maps catalogued; kept between runs."""
    root = (FOLDER / f"tables_{n}").resolve()
    points = FOLDER / f"points_{n}.parquet"
    if not points.exists():
        lat, lon = clustered_points(n, seed=7)
        ids = [f"synthetic/{i:08d}.jpg" for i in range(n)]
        pq.write_table(pa.table({"id": ids, "latitude": lat, "longitude": lon}), points)
    columns = {"image_id": "id", "lat": "latitude", "lon": "longitude"}
    source = {"name": "synthetic", "uri": str(points.resolve()), "format": "parquet", "columns": columns}
    if not (root / f"images/source=synthetic/run_id={RUN}/_SUCCESS").exists():
        job("ingest_images", {"source": source, "output": str(root)}, RUN)
    for collection in MAPS:
        if not (root / f"raster_catalog/collection={collection}/run_id={RUN}/_SUCCESS").exists():
            path = koppen() if collection == "koppen" else landscan_like(int(collection[-1])).resolve()
            rasters = {"collection": collection, "uri": str(path)}
            job("catalog_rasters", {"rasters": rasters, "output": str(root)}, RUN)
    return root


def label_config(root: Path, output: Path) -> dict[str, Any]:
    """Four density buckets of each synthetic map, the five climates, S2 level 10."""
    density = [
        {"name": name, "kind": "density", "collection": name, "edges": [10.0, 100.0, 1000.0]} for name in MAPS[:2]
    ]
    tables = {"images": {"root": str(root)}, "rasters": {"root": str(root)}, "output": str(output)}
    return {**tables, "partitions": [*density, "koppen", "s2_l10"]}


def label(root: Path) -> tuple[dict[str, Any], float]:
    """The job's report and its workers' peak memory; what it writes is deleted again."""
    output = FOLDER.resolve() / "labelled"
    shutil.rmtree(output, ignore_errors=True)
    try:
        return job("label_attributes", label_config(root, output), RUN)
    finally:
        shutil.rmtree(output, ignore_errors=True)


# Prefixes of the job, each run in a process of its own by `python -m benchmarks.label_job <prefix> <root>`.


def run_prefix(prefix: str, root: Path) -> None:
    """Print the seconds that a part of the job takes in a fresh session; all but `write` and `floor` end in a sink."""
    os.environ["PYSPARK_SUBMIT_ARGS"] = "--master local[2] --driver-memory 2g pyspark-shell"
    from geosieve.partitions import labelling
    from geosieve.partitions.catalog import read_catalog
    from geosieve.partitions.nearby import NOTHING
    from geosieve.runtime.config import validate
    from geosieve.runtime.session import spark_session
    from geosieve.tables.read import committed_runs, read_runs
    from geosieve.tables.schemas import IMAGES, labels_table

    output = FOLDER.resolve() / "prefix"
    config = validate(labelling.LabelConfig, label_config(root, output), "benchmark")
    names = [definition.name for definition in config.partitions]
    schema = labels_table(names).spark_schema()

    def constants(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for chunk in labelling._chunks(batches):
            for name in ("s2_id", *names):
                chunk = chunk.append_column(name, pa.array(np.zeros(chunk.num_rows, np.int64)))
            yield from chunk.to_batches(labelling._BATCH_ROWS)

    with spark_session("label_job", local=False) as spark:
        runs = committed_runs(spark, str(root), IMAGES)
        rows = sum(run.rows for run in runs)
        start = time.perf_counter()
        images = read_runs(spark, str(root), IMAGES, runs)
        points = images.where(labelling._POSITIONED).select("image_id", "source", "lat", "lon")
        tasks = max(2 * spark.sparkContext.defaultParallelism, -(-rows // labelling.ROWS_PER_TASK))
        ordered = points.repartitionByRange(tasks, *labelling._shuffle_key())
        if prefix in ("blocks", "write"):
            catalog = [d.build(lambda name: read_catalog(spark, str(root), name)) for d in config.partitions]
            labelled = labelling.label_points(points, catalog, dict.fromkeys(names, NOTHING), labels_table(names), rows)
        frame = {
            "read": lambda: points,
            "shuffle": lambda: ordered,
            "arrow": lambda: ordered.mapInArrow(constants, schema),
            "floor": lambda: ordered.mapInArrow(constants, schema),
            "blocks": lambda: labelled,
            "write": lambda: labelled,
        }[prefix]()
        if prefix in ("write", "floor"):
            shutil.rmtree(output, ignore_errors=True)
            frame.write.option("compression", "zstd").parquet(str(output))
        else:
            frame.write.format("noop").mode("overwrite").save()
        print(time.perf_counter() - start)
    shutil.rmtree(output, ignore_errors=True)


def prefix_seconds(prefix: str, root: Path) -> float:
    """Seconds of one prefix in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.label_job", prefix, str(root)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return float(done.stdout.splitlines()[-1])


def loop_seconds(n: int) -> float:
    """Seconds of the plain loop over the three maps in two processes, which share the latitude bands evenly."""
    lat, lon = clustered_points(n, seed=7)
    band = np.floor((90.0 - lat) / (512 / 120)).astype(int)
    maps = [landscan_like(1).resolve(), landscan_like(2).resolve(), koppen()]

    def work(half: int) -> None:
        mine = band % 2 == half
        for path in maps:
            plain_loop(path, lat[mine], lon[mine])

    fork = multiprocessing.get_context("fork")
    start = time.perf_counter()
    processes = [fork.Process(target=work, args=(half,)) for half in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert all(process.exitcode == 0 for process in processes)
    return time.perf_counter() - start


def medians(runs: list[dict[str, float]]) -> dict[str, float]:
    return {name: median(run[name] for run in runs) for name in runs[0]}


def main() -> int:
    """Exit code 1 when a bar is missed."""
    few, many = prepare(FEWER_POINTS), prepare(POINTS)
    whole: list[dict[str, float]] = []
    peaks: list[float] = []
    for _ in range(REPEATS):
        report, peak = label(many)
        assert report["rows_out"] == POINTS
        stages = report["seconds"]
        small = label(few)[0]["seconds"]
        floor = {"floor without sampling": prefix_seconds("floor", many), "plain loop": loop_seconds(POINTS)}
        facts = {
            "job": sum(s for stage, s in stages.items() if stage != "session"),
            "label + summary": stages["label"] + stages["summary"],
            "label + summary, fewer points": small["label"] + small["summary"],
        }
        print("  run: " + ", ".join(f"{stage} {s:.1f}" for stage, s in stages.items()), flush=True)
        whole.append({**facts, **floor})
        peaks.append(peak)
    seconds = medians(whole)
    for name, value in seconds.items():
        print(f"  {name}: {value:.1f} s")
    split(many)
    floor_s = seconds["floor without sampling"] + seconds["plain loop"]
    done = bar("job over floor", seconds["job"] / floor_s, 1.5)
    growth = seconds["label + summary"] / seconds["label + summary, fewer points"]
    done &= bar("time for four times the points", growth, 4.4)
    done &= bar("largest Python worker", max(peaks), 1.0, unit="GiB")
    bar("job, an aim and not a bar", seconds["job"], 30.0, unit="s")
    return 0 if done else 1


def split(root: Path) -> None:
    """Print what each step adds: the differences between prefixes that end one step later."""
    prefixes = ("read", "shuffle", "arrow", "blocks", "write")
    seconds = medians([{p: prefix_seconds(p, root) for p in prefixes} for _ in range(REPEATS)])
    before = [0.0, *(seconds[p] for p in prefixes[:-1])]
    steps = ", ".join(f"{p} {seconds[p] - b:.1f} s" for p, b in zip(prefixes, before, strict=True))
    print(f"  steps (differences of prefixes in fresh sessions): {steps}")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        run_prefix(sys.argv[1], Path(sys.argv[2]))
        sys.exit(0)
    sys.exit(main())
