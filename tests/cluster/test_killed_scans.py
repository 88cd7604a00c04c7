"""Executors, Python workers and drivers are killed at random moments of `geolocate_archive`: its tables stay exact.

The cluster is Spark's local-cluster: a master, and two workers with an executor process each. GEOSIEVE_KILLS says how
many processes are killed.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import colour_predictors
import duckdb
import numpy as np
import psutil
import pyarrow.parquet as pq
from job_client import Died, JobServer, Outcome
from small_scans import COLOURS, member, overlay_config, packed, picture

from geosieve.runtime.errors import EXIT_DONE, EXIT_RETRYABLE
from geosieve.runtime.store import StoreFiles
from geosieve.sql import duckdb as views
from geosieve.tables.read import find_runs
from geosieve.tables.schema import Table
from geosieve.tables.schemas import IMAGE_SUMMARY, IMAGES, PREDICTIONS, RANKED_REGIONS, REJECTS, SCANNED_FILES

JOB = "geolocate_archive"
KILLS = int(os.environ.get("GEOSIEVE_KILLS", "3"))
VICTIMS = ("driver", "executor", "worker")
TABLES = (IMAGES, IMAGE_SUMMARY, PREDICTIONS, RANKED_REGIONS, REJECTS, SCANNED_FILES)
"""All that a scan writes, but `audit`, which tells when it began."""

Rows = dict[str, list[dict[str, Any]]]


def rows(root: Path, table: Table) -> list[dict[str, Any]]:
    """Of committed runs, sorted."""
    files = [f"{run.uri}/{name}" for run in find_runs(StoreFiles(), str(root), table) for name in run.files]
    return sorted((row for file in files for row in pq.ParquetFile(file).read().to_pylist()), key=repr)


class Cluster:
    """A folder with an archive, and drivers whose jobs scan it."""

    def __init__(self, root: Path) -> None:
        self.root, self._servers = root, 0
        self.photos = root / "photos"
        self.photos.mkdir()
        files, colours = packed()
        copies = {"copy.png": picture(*COLOURS[9]), "cut.png": picture(1, 1)[:40]}
        for name, content in {**files, **copies}.items():
            (self.photos / name).write_bytes(content)
        self.answered, self.rejected = {*colours, "copy.png"}, ["cut.png"]
        self.twins = {"copy.png", *(name for name, colour in colours.items() if colour == COLOURS[9])}
        self.server = self.started()
        outcome = self.server.run("build_overlay", {**overlay_config(root, str(root)), "output": str(root)}, "o")
        assert outcome.exit_code == EXIT_DONE, outcome.report["error"]
        self.hashes = outcome.report["details"]["partitions"]

    def started(self) -> JobServer:
        self._servers += 1
        places = [str(Path(colour_predictors.__file__).parent), os.environ.get("PYTHONPATH", "")]
        environment = {"PYTHONPATH": os.pathsep.join(places)}
        return JobServer(self.root / f"server{self._servers}", "local-cluster[2,1,1024]", None, environment)

    def config(self, output: Path) -> dict[str, Any]:
        """Of a scan that writes two parts and takes some seconds for each. A dead run's lock ends after a second."""
        members = {"b": member(self.hashes, "bands", 0, seconds=0.3), "s": member(self.hashes, "sides", 1)}
        return {
            "name": "scan",
            "source": {"name": "archive", "format": "photos", "uri": str(self.photos)},
            "overlay": {"root": str(self.root), "name": "world"},
            "members": members,
            "batch": 4,
            "images_per_part": 6,
            "lock_minutes": 0.02,
            "output": str(output),
        }

    def checked(self, outcome: Outcome, output: Path) -> Rows:
        """The tables of a run that is done. What came in is in them, and nothing twice."""
        report, found = outcome.report, {table.name: rows(output, table) for table in TABLES}
        assert report["rows_in"] == report["rows_out"] + sum(report["rejected"].values()) == 14
        summaries, rejects = found[IMAGE_SUMMARY.name], found[REJECTS.name]
        assert sorted(row["image_id"] for row in summaries) == sorted(self.answered)
        assert [row["id"] for row in rejects] == self.rejected
        ranked = Counter(row["image_id"] for row in found[RANKED_REGIONS.name])
        own = {row["image_id"]: row["regions"] for row in summaries if row["image_id"] == row["answer_image_id"]}
        # Names, which begin with the test's folder, decide in which part an image is, and the first part looks at it.
        assert len(self.twins) == 2 and len(self.twins & own.keys()) == 1
        assert own.keys() | self.twins == self.answered
        assert ranked == own
        return found


def victims(driver: JobServer, kind: str) -> list[psutil.Process]:
    """The processes of a kind that belong to a driver at this moment."""
    found = []
    with suppress(psutil.NoSuchProcess):
        for process in psutil.Process(driver.process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                above, words = process.parent(), " ".join(process.cmdline())
                if kind == "executor":
                    wanted = "java" in process.name() and "CoarseGrainedExecutorBackend" in words
                else:
                    wanted = "pyspark.daemon" in words and above is not None and "daemon" in " ".join(above.cmdline())
                if wanted:
                    found.append(process)
    return found


def killed(driver: JobServer, kind: str, rng: np.random.Generator) -> bool:
    """Kill one process of a kind, and see that it is gone. False if there was none."""
    if kind == "driver":
        driver.kill()
        return driver.process.returncode == -signal.SIGKILL
    found = victims(driver, kind)
    if not found:
        return False
    victim = found[rng.integers(len(found))]
    try:
        victim.send_signal(signal.SIGKILL)
    except psutil.NoSuchProcess:
        return False
    end = time.monotonic() + 30
    while victim.is_running() and victim.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < end
        time.sleep(0.02)
    return True


@contextmanager
def watched(output: Path) -> Iterator[Counter[tuple[int, int]]]:
    """What DuckDB's views have said, again and again: numbers of rows of `image_summary` and `ranked_regions`."""
    seen: Counter[tuple[int, int]] = Counter()
    over, failures = threading.Event(), list[Exception]()

    def count(table: Table) -> int:
        with duckdb.connect() as connection:
            views.register(connection, str(output))
            return int(connection.execute(f"SELECT count(*) FROM {table.name}").fetchall()[0][0])

    def watch() -> None:
        while not over.wait(0.2):
            try:
                summaries = count(IMAGE_SUMMARY)  # first: once they are there, so are their regions
                seen[summaries, count(RANKED_REGIONS)] += 1
            except Exception as failure:  # noqa: BLE001 - raised below
                failures.append(failure)
                return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()
    assert not failures, failures[0]


def test_killed_again_and_again_the_tables_are_those_of_an_undisturbed_run(tmp_path: Path) -> None:
    cluster, rng = Cluster(tmp_path), np.random.default_rng(len(COLOURS))
    began = time.monotonic()
    outcome = cluster.server.run(JOB, cluster.config(tmp_path / "quiet"), "r")
    assert outcome.exit_code == EXIT_DONE, outcome.report["error"]
    seconds = time.monotonic() - began
    expected = cluster.checked(outcome, tmp_path / "quiet")
    whole = len(expected[IMAGE_SUMMARY.name]), len(expected[RANKED_REGIONS.name])
    to_come = [VICTIMS[k % len(VICTIMS)] for k in range(KILLS)]
    rng.shuffle(to_come)
    done, codes = Counter[str](), Counter[int | None]()
    with ThreadPoolExecutor(1) as pool:
        for run in range(1 + KILLS):  # most kills go into one run, but a run may end before its next one
            output = tmp_path / f"killed{run}"
            with watched(output) as seen:
                code = None
                while code != EXIT_DONE:
                    cluster.server.start(JOB, cluster.config(output), "r")
                    ending = pool.submit(cluster.server.finish)
                    while to_come and not _is_over(ending, rng.uniform(0.1, 0.5) * seconds):
                        if killed(cluster.server, to_come[0], rng):
                            done[to_come.pop(0)] += 1
                    try:
                        outcome = ending.result(600)
                        code = outcome.exit_code
                        assert code in (EXIT_DONE, EXIT_RETRYABLE), outcome.report["error"]
                    except Died:
                        cluster.server, code = cluster.started(), None
                    codes[code] += 1
                    assert sum(codes.values()) <= 2 * KILLS + 2, codes
                    assert bool(rows(output, IMAGE_SUMMARY)) == (code == EXIT_DONE)
            assert cluster.checked(outcome, output) == expected
            assert {summaries for summaries, _ in seen} <= {0, whole[0]} and seen.keys() & {(0, 0)}
            assert {regions for _, regions in seen} <= {0, whole[1]} and (whole[0], 0) not in seen
            if not to_come:
                break
    cluster.server.close()
    assert sum(done.values()) == KILLS
    print(f"killed {dict(done)}, runs {1 + run}, ends {dict(codes)}, {time.monotonic() - began:.0f} s")


def _is_over(ending: Future[Outcome], seconds: float) -> bool:
    return bool(wait([ending], seconds).done)
