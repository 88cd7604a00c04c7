"""Executors, Python workers and drivers are killed inside a task of `label_attributes`; rows stay exact.

The cluster is Spark's local-cluster: a master, and two workers with an executor process each.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from fabricated_world import (
    PARTITIONS,
    catalog_config,
    ingest_config,
    label_config,
    make_files,
    run_fingerprint,
)
from job_client import Died, JobServer

CLUSTER = "local-cluster[2,1,1024]"
IMAGES = 1_000


class World:
    """Fabricated inputs, and outputs in one folder for each case."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.tables = str(root / "tables")
        make_files(root / "files", IMAGES)

    def case(self, name: str) -> tuple[Path, Path, dict[str, object]]:
        """Output folder, folder of the held partition's files, and configuration."""
        output, held = self.root / name, self.root / f"{name}-held"
        held.mkdir()
        return output, held, self.config(name)

    def config(self, name: str) -> dict[str, object]:
        held = {"kind": "held", "name": "hemisphere", "uri": str(self.root / f"{name}-held")}
        return label_config(self.tables, str(self.root / name), [*PARTITIONS, held])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("cluster"))


@pytest.fixture(scope="module")
def cluster(world: World) -> Iterator[JobServer]:
    server = JobServer(world.root / "server", CLUSTER)
    files = str(world.root / "files")
    assert server.run("ingest_images", ingest_config(files, world.tables), "i").exit_code == 0
    for collection in ("climate", "population"):
        assert server.run("catalog_rasters", catalog_config(files, world.tables, collection), "c").exit_code == 0
    yield server
    server.close()


@pytest.fixture(scope="module")
def undisturbed(world: World, cluster: JobServer) -> str:
    output, _, config = world.case("undisturbed")
    outcome = cluster.run("label_attributes", config, "r")
    assert (outcome.exit_code, outcome.report["rows_out"]) == (0, IMAGES)
    labelled = {name: facts["labelled"] for name, facts in outcome.report["details"]["partitions"].items()}
    assert labelled["hemisphere"] == labelled["cells"] == IMAGES
    assert 0 < labelled["population"] < labelled["climate"] < IMAGES
    return run_fingerprint(output, "r")


def _worker_inside_a_task(held: Path, server: JobServer) -> psutil.Process:
    """A Python worker that is labelling at this moment."""
    end = time.monotonic() + 120
    while time.monotonic() < end and server.process.poll() is None:
        for marker in held.glob("entered-*"):
            return psutil.Process(int(marker.name.split("-")[1]))
        time.sleep(0.05)
    raise AssertionError(f"no task was entered; see {server.log}")


def _executor_of(worker: psutil.Process) -> psutil.Process:
    """The JVM above a worker's daemon."""
    executor = next(p for p in worker.parents() if "java" in p.name())
    assert any("CoarseGrainedExecutorBackend" in word for word in executor.cmdline())
    return executor


def _labelled_nothing_yet(output: Path) -> bool:
    return not list(output.glob("*/**/_SUCCESS"))


@pytest.mark.parametrize("victim", ["worker", "executor"])
def test_a_process_killed_inside_a_task_changes_no_row(
    world: World, cluster: JobServer, undisturbed: str, victim: str
) -> None:
    output, held, config = world.case(victim)
    (held / "hold").touch()
    cluster.start("label_attributes", config, "r")
    worker = _worker_inside_a_task(held, cluster)
    process = worker if victim == "worker" else _executor_of(worker)
    os.kill(process.pid, signal.SIGKILL)
    _wait_until_gone(process)
    (held / "hold").unlink()
    outcome = cluster.finish()
    assert outcome.exit_code == 0
    assert run_fingerprint(output, "r") == undisturbed
    # Four tasks, and at least the killed one a second time.
    assert len(list(held.glob("entered-*"))) > 4


def _wait_until_gone(process: psutil.Process) -> None:
    end = time.monotonic() + 30
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_driver_killed_while_its_tasks_write_is_made_good_by_a_rerun(
    world: World, cluster: JobServer, undisturbed: str
) -> None:
    output, held, config = world.case("driver")
    driver = JobServer(world.root / "driver-server", CLUSTER)
    (held / "hold").touch()
    driver.start("label_attributes", config, "r")
    _worker_inside_a_task(held, driver)
    driver.kill()
    (held / "hold").unlink()
    assert (output / "labels/run_id=r").exists()
    assert _labelled_nothing_yet(output)
    assert cluster.run("label_attributes", config, "r").exit_code == 0
    assert run_fingerprint(output, "r") == undisturbed


def test_a_driver_killed_while_it_commits_is_made_good_by_a_rerun(
    world: World, cluster: JobServer, undisturbed: str
) -> None:
    # The 1st of four markers is the first side table's, the 4th the main table's. Both drivers start at once.
    drivers = {mark: JobServer(world.root / f"mark{mark}-server", "local[1]") for mark in (1, 4)}
    cases = {mark: world.case(f"mark{mark}") for mark in drivers}
    for mark, driver in drivers.items():
        driver.start("label_attributes", cases[mark][2], "r", die_at_mark=mark)
    for mark, driver in drivers.items():
        output, _, config = cases[mark]
        with pytest.raises(Died):
            driver.finish()
        assert driver.process.returncode == -signal.SIGKILL
        assert list(output.glob("labels/run_id=r/part-*.parquet"))
        assert not (output / "labels/run_id=r/_SUCCESS").exists()
        assert len(list(output.glob("*/**/_SUCCESS"))) == mark - 1
        assert cluster.run("label_attributes", config, "r").exit_code == 0
        assert run_fingerprint(output, "r") == undisturbed
        assert len(list(output.glob("*/**/_SUCCESS"))) == 4


def test_a_finished_run_is_skipped_and_another_configuration_refused(
    world: World, cluster: JobServer, undisturbed: str
) -> None:
    leaf = world.root / "undisturbed"
    before = {path: path.stat().st_mtime_ns for path in leaf.rglob("*")}
    again = cluster.run("label_attributes", world.config("undisturbed"), "r")
    assert (again.exit_code, again.report["status"]) == (99, "nothing_to_do")
    other = {**world.config("undisturbed"), "partitions": PARTITIONS}
    refused = cluster.run("label_attributes", other, "r")
    assert (refused.exit_code, refused.report["status"]) == (78, "failed")
    assert "--run-id" in refused.report["error"]
    assert {path: path.stat().st_mtime_ns for path in leaf.rglob("*")} == before
