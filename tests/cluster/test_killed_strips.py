"""Executors and drivers are killed while strips are prepared: no reader ever finds half a file, and rows are the same.

Strips are written to the byte alike in every run, so each file that is ever seen under a strip's name is compared.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from fabricated_strips import texture, write_strip
from job_client import Died, JobServer
from rasterio.transform import Affine

from geosieve.runtime.errors import EXIT_DONE
from geosieve.runtime.store import StoreFiles
from geosieve.tables.read import find_runs
from geosieve.tables.schemas import REJECTS, STRIPS

JOB = "prepare_strips"
NAMES = {"a", "b"}
POISON = Path(__file__).parent / "poison_strips"


def config(strips: Path, output: Path) -> dict[str, Any]:
    return {"strips": {"name": "s", "uri": str(strips), "resolution_m": 0.5}, "output": str(output)}


def seen(output: Path) -> dict[str, str]:
    """SHA-256 of each file that lies under a strip's final name, by the strip's id."""
    found = {}
    for path in (output / "_strips").rglob("*.tif"):
        if not any(part.startswith("_tiles-") for part in path.parts):
            found[path.stem] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def rows(output: Path) -> list[list[dict[str, Any]]]:
    """Of the committed run in both tables, with the folder of the output left out."""
    found = []
    for table in (STRIPS, REJECTS):
        files = [f"{run.uri}/{name}" for run in find_runs(StoreFiles(), str(output), table) for name in run.files]
        listed = sorted((row for file in files for row in pq.ParquetFile(file).read().to_pylist()), key=repr)
        found.append([{k: str(v).replace(str(output), "") if k == "uri" else v for k, v in r.items()} for r in listed])
    return found


@contextmanager
def watched(output: Path, expected: dict[str, str]) -> Iterator[None]:
    """Look again and again: what lies under a strip's name is the whole file."""
    over, found = threading.Event(), Counter[tuple[str, str]]()

    def watch() -> None:
        while not over.wait(0.02):
            found.update(seen(output).items())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    assert found.keys() <= expected.items()


@pytest.fixture(scope="module")
def strips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("strips")
    for seed, name in enumerate(sorted(NAMES)):
        place = Affine(1, 0, 5e5 + 2000 * seed, 0, -1, 5e6), "EPSG:32633"
        write_strip(folder / f"{name}.tif", texture(3, 400, 1100, seed=seed), *place)
    write_strip(folder / "bad.tif", texture(3, 40, 40), Affine(1, 0, 5e5, 0, -1, 5e6), None)
    return folder


@pytest.fixture(scope="module")
def server(strips: Path) -> Iterator[JobServer]:
    server = JobServer(strips.with_name("server"), "local[2]")
    yield server
    server.close()


@pytest.fixture(scope="module")
def undisturbed(strips: Path, server: JobServer) -> Path:
    """The output of a run that nothing disturbs."""
    output = strips.with_name("quiet")
    outcome = server.run(JOB, config(strips, output), "r")
    assert outcome.exit_code == EXIT_DONE, outcome.report["error"]
    assert seen(output).keys() == NAMES
    assert [len(found) for found in rows(output)] == [2, 1]
    assert {row["strip_id"]: row["content_sha256"] for row in rows(output)[0]} == seen(output)
    return output


def poisoned(folder: Path, master: str) -> tuple[JobServer, Path]:
    """A driver whose workers are poisoned, and the folder that arms them."""
    armed = folder / "armed"
    armed.mkdir()
    path = os.pathsep.join([str(POISON), os.environ.get("PYTHONPATH", "")])
    return JobServer(folder / "server", master, environment={"PYTHONPATH": path, "ARMED": str(armed)}), armed


def test_executors_killed_while_they_write_tiles_and_strips_change_nothing(
    strips: Path, undisturbed: Path, tmp_path: Path
) -> None:
    cluster, armed = poisoned(tmp_path, "local-cluster[2,1,1024]")
    (armed / "tile").touch()
    (armed / "upload").touch()
    output = tmp_path / "out"
    try:
        with watched(output, seen(undisturbed)):
            outcome = cluster.run(JOB, config(strips, output), "r")
    finally:
        cluster.close()
    assert outcome.exit_code == EXIT_DONE, outcome.report["error"]
    assert not list(armed.iterdir())  # two executors were killed
    assert rows(output) == rows(undisturbed) and seen(output) == seen(undisturbed)


def test_a_driver_killed_in_the_middle_of_an_upload_leaves_no_strip_and_a_rerun_makes_it_good(
    strips: Path, undisturbed: Path, server: JobServer, tmp_path: Path
) -> None:
    driver, armed = poisoned(tmp_path, "local[2]")
    output = tmp_path / "out"
    (armed / "halt").touch()
    with watched(output, seen(undisturbed)):
        driver.start(JOB, config(strips, output), "r")
        end = time.monotonic() + 60
        while not (armed / "halted").exists():
            assert time.monotonic() < end
            time.sleep(0.05)
        driver.kill()
        with pytest.raises(Died):
            driver.finish()
        assert not seen(output) and not find_runs(StoreFiles(), str(output), STRIPS)
        assert list((output / "_strips").rglob("*.part"))  # it was killed while it wrote
        outcome = server.run(JOB, config(strips, output), "r")
    assert outcome.exit_code == EXIT_DONE, outcome.report["error"]
    assert rows(output) == rows(undisturbed) and seen(output) == seen(undisturbed)
    assert not list((output / "_strips").rglob("_tiles-*"))
