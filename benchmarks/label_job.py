"""The labelling job: 4.7 million points x three 30 arc-second maps and S2 cells, against a floor; two cores.

The floor is the time of reading, shuffling and writing the points, plus a plain loop over the maps' blocks.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from benchmarks import FOLDER
from benchmarks.fabricate import clustered_points, landscan_like
from benchmarks.maps import koppen, plain_loop
from benchmarks.timing import REPEATS, bar
from geosieve.runtime.errors import EXIT_DONE, EXIT_NOTHING_TO_DO
from geosieve.runtime.session import DAEMON

POINTS, FEWER_POINTS = 4_700_000, 1_175_000
MAPS = ("landscan_like_1", "landscan_like_2", "koppen")
RUN = "benchmark"
STEPS = ("read", "shuffle", "arrow", "blocks", "write")  # `run_prefix` times the job up to each of them
SPARK_SUBMIT = [str(Path(sys.executable).with_name("spark-submit")), "--master", "local[2]", "--driver-memory", "2g"]


@dataclass
class Used:
    """Resources that a process and its descendants have used so far, by process id."""

    cpu: dict[int, float] = field(default_factory=dict)  # processor seconds
    worker_rss: dict[int, int] = field(default_factory=dict)  # peak resident bytes of Python workers

    def look(self, root: psutil.Process) -> None:
        """Add the present use of `root` and its descendants. Processes that have just ended are skipped."""
        for process in (root, *root.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                self.cpu[process.pid] = times.user + times.system
                if DAEMON in process.cmdline():
                    rss = process.memory_info().rss
                    self.worker_rss[process.pid] = max(self.worker_rss.get(process.pid, 0), rss)


def watched(command: list[str]) -> tuple[int, str, str, Used]:
    """Run a command. Return its exit code, standard output, standard error and resource use, sampled every 0.2 s."""
    used = Used()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as log:
        environment = {**os.environ, "PYSPARK_PYTHON": sys.executable}
        process = subprocess.Popen(command, stdout=out, stderr=log, env=environment)
        while process.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess):
                used.look(psutil.Process(process.pid))
            time.sleep(0.2)
        out.seek(0)
        log.seek(0)
        return process.returncode, out.read(), log.read(), used


def job(name: str, config: dict[str, Any], run_id: str, *options: str) -> tuple[dict[str, Any], Used]:
    """Run jobs/<name>.py with spark-submit, its options. Return its report and resource use. SystemExit if it fails."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"{name}.yaml")
        path.write_text(yaml.safe_dump(config))
        of_job = [f"jobs/{name}.py", "--config", str(path), "--run-id", run_id]
        code, out, log, used = watched([*SPARK_SUBMIT, *options, *of_job])
    if code not in (EXIT_DONE, EXIT_NOTHING_TO_DO):
        raise SystemExit(f"{name} failed:\n{log[-4000:]}")
    return json.loads(out.splitlines()[-1]), used


def prepare_images(n: int) -> Path:
    """Root of tables with n synthetic images. Later runs use them again."""
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
    return root


def prepare(n: int) -> Path:
    """Root of tables with n synthetic images and the catalogued maps. Later runs use them again."""
    root = prepare_images(n)
    for collection in MAPS:
        if not (root / f"raster_catalog/collection={collection}/run_id={RUN}/_SUCCESS").exists():
            path = koppen() if collection == "koppen" else landscan_like(int(collection[-1])).resolve()
            rasters = {"collection": collection, "uri": str(path)}
            job("catalog_rasters", {"rasters": rasters, "output": str(root)}, RUN)
    return root


def label_config(root: Path, output: Path) -> dict[str, Any]:
    """Configuration of the job: four density buckets of each synthetic map, the five climates, S2 level 10."""
    density = [
        {"name": name, "kind": "density", "collection": name, "edges": [10.0, 100.0, 1000.0]} for name in MAPS[:2]
    ]
    tables = {"images": {"root": str(root)}, "rasters": {"root": str(root)}, "output": str(output)}
    return {**tables, "partitions": [*density, "koppen", "s2_l10"]}


def label(root: Path) -> tuple[dict[str, Any], Used]:
    """Run the labelling job and delete its output. Return its report and resource use."""
    output = FOLDER.resolve() / "labelled"
    shutil.rmtree(output, ignore_errors=True)
    try:
        return job("label_attributes", label_config(root, output), RUN)
    finally:
        shutil.rmtree(output, ignore_errors=True)


def run_prefix(prefix: str, root: Path) -> None:
    """Run the job up to a step in a new Spark session, and print the seconds.

    `floor` writes the shuffled points with constant labels, and `write` is the whole job. Other prefixes discard
    their rows in Spark's `noop` sink.
    """
    os.environ["PYSPARK_SUBMIT_ARGS"] = "--master local[2] --driver-memory 2g pyspark-shell"
    from geosieve.images.read import POSITIONED
    from geosieve.labels import label as labelling
    from geosieve.labels.summary import LabelCounter
    from geosieve.partitions.read import CommittedTables
    from geosieve.rasters.candidates import NOTHING
    from geosieve.runtime.config import validate
    from geosieve.runtime.session import spark_session
    from geosieve.tables.arrow import chunks, tasks_for
    from geosieve.tables.read import committed_runs, read_runs
    from geosieve.tables.schemas import IMAGES, labels_table

    output = FOLDER.resolve() / "prefix"
    config = validate(labelling.LabelConfig, label_config(root, output), "benchmark")
    names = [definition.name for definition in config.partitions]
    schema = labels_table(names).spark_schema()

    def constants(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for chunk in chunks(batches):
            for name in ("s2_id", *names):
                chunk = chunk.append_column(name, pa.array(np.zeros(chunk.num_rows, np.int64)))
            yield from chunk.to_batches(labelling._BATCH_ROWS)

    with spark_session("label_job", local=False) as spark:
        runs = committed_runs(spark, str(root), IMAGES)
        rows = sum(run.rows for run in runs)
        start = time.perf_counter()
        images = read_runs(spark, str(root), IMAGES, runs)
        points = images.where(POSITIONED).select("image_id", "source", "lat", "lon")
        ordered = points.repartitionByRange(tasks_for(spark, rows), *labelling._shuffle_key())
        if prefix in ("blocks", "write"):
            catalog = [d.build(CommittedTables(spark, str(root))) for d in config.partitions]
            nothing = dict.fromkeys(names, NOTHING)
            counter = LabelCounter(spark, names)
            labelled = labelling.label_points(points, catalog, nothing, labels_table(names), rows, counter)
        frame = {
            "session": lambda: spark.range(1),
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


def prefix_seconds(prefix: str, root: Path) -> tuple[float, float]:
    """Run one prefix in a new process. Return wall seconds without the session's start, and processor seconds with it.

    SystemExit if the process fails.
    """
    code, out, log, used = watched([sys.executable, "-m", "benchmarks.label_job", prefix, str(root)])
    if code not in (EXIT_DONE, EXIT_NOTHING_TO_DO):
        raise SystemExit(f"{prefix} failed:\n{log[-4000:]}")
    return float(out.splitlines()[-1]), sum(used.cpu.values())


def loop_seconds(n: int) -> tuple[float, float]:
    """Wall and processor seconds of the plain loop over three maps, for n points.

    Two processes work in parallel; each gets every second band of latitude.
    """
    lat, lon = clustered_points(n, seed=7)
    band = np.floor((90.0 - lat) / (512 / 120)).astype(int)
    maps = [landscan_like(1).resolve(), landscan_like(2).resolve(), koppen()]

    def work(half: int) -> None:
        mine = band % 2 == half
        for path in maps:
            plain_loop(path, lat[mine], lon[mine])

    fork = multiprocessing.get_context("fork")
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    processes = [fork.Process(target=work, args=(half,)) for half in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert all(process.exitcode == 0 for process in processes)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> int:
    """Return exit code 1 if a bar is missed."""
    few, many = prepare(FEWER_POINTS), prepare(POINTS)
    walls: list[dict[str, float]] = []
    cpus: list[dict[str, float]] = []
    peaks: list[int] = []
    for _ in range(REPEATS):
        report, used = label(many)
        assert report["rows_out"] == POINTS
        stages = report["seconds"]
        print("  run: " + ", ".join(f"{stage} {s:.1f}" for stage, s in stages.items()) + " s", flush=True)
        steps, loop = {"floor": prefix_seconds("floor", many)}, loop_seconds(POINTS)
        fewer = label(few)[0]["seconds"]
        steps |= {prefix: prefix_seconds(prefix, many) for prefix in ("session", *STEPS)}
        walls.append(
            {
                "job": sum(s for stage, s in stages.items() if stage != "session"),
                "plain loop": loop[0],
                "label + summary": stages["label"] + stages["summary"],
                "label + summary of fewer": fewer["label"] + fewer["summary"],
                **{step: seconds[0] for step, seconds in steps.items()},
            }
        )
        session = steps["session"][1]
        cpus.append(
            {
                "job": sum(used.cpu.values()) - session,
                "plain loop": loop[1],
                **{step: seconds[1] - session for step, seconds in steps.items()},
            }
        )
        peaks.append(max(used.worker_rss.values()))
    for what, runs in (("wall", walls), ("processor", cpus)):
        seconds = {name: median(run[name] for run in runs) for name in runs[0]}
        print(f"  {what} seconds: " + ", ".join(f"{name} {s:.1f}" for name, s in seconds.items()))
        added = np.diff([seconds[step] for step in STEPS], prepend=0.0)
        print(f"  {what} seconds by step: " + ", ".join(f"{p} {s:.1f}" for p, s in zip(STEPS, added, strict=True)))
    # The load of the machine changes between repeats, so ratios are computed within each repeat.
    wall, cpu = (median(run["job"] / (run["floor"] + run["plain loop"]) for run in runs) for runs in (walls, cpus))
    done = bar("job over floor, wall", wall, 1.5)
    print(f"  job over floor, processor time: {cpu:.2f} x")
    growth = median(run["label + summary"] / run["label + summary of fewer"] for run in walls)
    done &= bar("time for four times the points", growth, 4.4)
    done &= bar("largest Python worker", max(peaks) / 2**30, 1.0, unit="GiB")
    bar("job, an aim", median(run["job"] for run in walls), 30.0, unit="s")
    return 0 if done else 1


if __name__ == "__main__":
    if len(sys.argv) == 3:
        run_prefix(sys.argv[1], Path(sys.argv[2]))
        sys.exit(0)
    sys.exit(main())
