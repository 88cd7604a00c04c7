"""Committed runs in a server of Iceberg's REST catalogue: registered and retired, without a secret told."""

from __future__ import annotations

import json
import os
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession
from rest_server import SCOPE, WAREHOUSE, Refusal, RestServer
from small_rankings import REGIONS, TABLES, publish
from workspace import JOBS, Report, Workspace

from geosieve.job.main import Context
from geosieve.runtime.config import validate
from geosieve.runtime.errors import EXIT_BAD_CONFIG, EXIT_DONE, EXIT_NOTHING_TO_DO, EXIT_RETRYABLE
from geosieve.runtime.report import JobReport
from geosieve.sql.config import RegisterConfig, RetireConfig
from geosieve.sql.iceberg import CATALOG
from geosieve.sql.register import register_tables
from geosieve.sql.retire import retire_runs

TOKEN, CREDENTIAL = "GEOSIEVE_TEST_TOKEN", "GEOSIEVE_TEST_CREDENTIAL"
"""Variables of the tests' environment, which Spark has from its start; see tests/conftest.py."""
JOBS_HERE = {
    "register_tables": (RegisterConfig, register_tables),
    "retire_runs": (RetireConfig, retire_runs),
}
RUNS = {"r1": 2 * REGIONS, "r2": REGIONS}
"""Rows of `ranked_regions` by run."""


class World(Workspace):
    """Two runs of a ranking, and a server that nobody enters without the secrets of the environment."""

    def __init__(self, root: Path, spark: SparkSession) -> None:
        super().__init__(root)
        self.spark, self.jobs = spark, {**JOBS, **JOBS_HERE}
        self.server = RestServer(spark, root / "server", os.environ[TOKEN], os.environ[CREDENTIAL])
        publish(spark, str(self.tables), "r1", ["a", "b"])
        publish(spark, str(self.tables), "r2", ["c"], {"copy_of_a": ("r1", "a")})

    def config(self, namespace: str, **change: Any) -> dict[str, Any]:
        way = {} if "credential_variable" in change else {"token_variable": TOKEN}
        catalog = {"kind": "rest", "uri": self.server.uri, "warehouse": WAREHOUSE, **way, **change}
        return {"root": str(self.tables), "namespace": namespace, "catalog": catalog, "tables": ["ranked_regions"]}

    def register(self, namespace: str, **change: Any) -> Report:
        """Register the runs of `ranked_regions`."""
        return self.job("register_tables", self.config(namespace, **change))

    def job(self, job: str, config: dict[str, Any]) -> Report:
        path = self.root / f"{job}.json"
        path.write_text(json.dumps(config))
        return self.command(job, path)

    def counts(self, namespace: str) -> dict[str, int]:
        runs = self.spark.sql(f"SELECT run_id FROM {CATALOG}.{namespace}.ranked_regions").collect()
        return dict(Counter(row["run_id"] for row in runs))


@pytest.fixture(scope="module")
def world(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("rest"), spark)
    yield made
    made.server.close()


def test_registered_once_with_the_rows_of_the_files(world: World) -> None:
    config = {**world.config("once"), "tables": None}
    code, report = world.job("register_tables", config)
    assert code == EXIT_DONE and report["rows_out"] == 2 * len(TABLES), report["error"]
    for table in TABLES:
        columns = [column.name for column in (*table.columns, *table.partition_columns)]
        known = world.spark.table(f"{CATALOG}.once.{table.name}").select(columns).collect()
        files = world.spark.read.parquet(str(world.tables / table.name)).select(columns).collect()
        assert files and sorted(map(str, known)) == sorted(map(str, files))
    before = len(world.server.answered)
    assert world.job("register_tables", config)[0] == EXIT_NOTHING_TO_DO
    asked = world.server.answered[before:]
    assert asked and not [one for one in asked if one.method != "GET" and not one.path.endswith("/metrics")]


def test_a_client_gets_a_token_for_its_credential(world: World) -> None:
    code, report = world.register("client", credential_variable=CREDENTIAL, scope=SCOPE)
    assert code == EXIT_DONE and report["rows_out"] == len(RUNS), report["error"]
    assert world.counts("client") == RUNS


def test_a_conflict_is_answered_by_another_try_that_finds_the_run(world: World) -> None:
    """Another session registers everything between the look at a table and the commit to it."""

    def register() -> None:
        report = JobReport("register_tables", "other")
        config = validate(RegisterConfig, world.config("conflict"), "here")
        register_tables(Context(world.spark.newSession(), config, report, dry_run=False))
        assert report.rows_out == len(RUNS)

    world.server.before_commit = register
    before = len(world.server.answered)
    code, report = world.register("conflict")
    assert code == EXIT_NOTHING_TO_DO, report["error"]
    assert [one.status for one in world.server.answered[before:] if one.method == "POST"].count(409) == 1
    assert world.counts("conflict") == RUNS


def test_of_two_at_once_each_run_lands_once(world: World) -> None:
    config = validate(RegisterConfig, world.config("race"), "here")

    def register(name: str) -> int:
        report = JobReport("register_tables", name)
        register_tables(Context(world.spark.newSession(), config, report, dry_run=False))
        return report.rows_out

    with ThreadPoolExecutor(2) as both:
        assert sum(both.map(register, ("one", "other"))) == len(RUNS)
    assert world.register("race")[0] == EXIT_NOTHING_TO_DO
    assert world.counts("race") == RUNS


def refuse(status: int) -> Callable[[], None]:
    def refused() -> None:
        raise Refusal(status, f"not with {os.environ[TOKEN]}")

    return refused


@pytest.mark.parametrize(
    ("status", "exit_code", "told"),
    [(403, EXIT_BAD_CONFIG, TOKEN), (500, EXIT_RETRYABLE, "run the job again")],
)
def test_a_server_that_fails_in_the_middle(world: World, status: int, exit_code: int, told: str) -> None:
    namespace = f"fails_{status}"
    world.server.before_commit = refuse(status)
    code, report = world.register(namespace)
    assert code == exit_code and world.server.uri in report["error"] and told in report["error"], report["error"]
    assert os.environ[TOKEN] not in world.printed
    assert world.register(namespace)[0] == EXIT_DONE  # the rest
    assert world.counts(namespace) == RUNS


def test_a_wrong_token_is_refused_and_not_told(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    world.server.token, known = "another", world.server.token
    try:
        code, report = world.register("x")
    finally:
        world.server.token = known
    assert code == EXIT_BAD_CONFIG
    assert all(part in report["error"] for part in ("refuses", world.server.uri, TOKEN))
    out, log = capfd.readouterr()
    assert known not in out + log + world.printed


def test_a_wrong_client_is_refused_and_not_told(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    world.server.credential, known = "the-client:another", world.server.credential
    try:
        code, report = world.register("x", credential_variable=CREDENTIAL, scope=SCOPE)
    finally:
        world.server.credential = known
    assert code == EXIT_BAD_CONFIG
    assert all(part in report["error"] for part in ("refuses", world.server.uri, CREDENTIAL))
    out, log = capfd.readouterr()
    assert known.split(":")[1] not in out + log + world.printed


def test_what_is_no_catalogue(world: World) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{free.getsockname()[1]}"  # nobody listens
        code, report = world.register("x", uri=uri)
    assert code == EXIT_RETRYABLE and "refused" in report["error"] and uri in report["error"]
    code, report = world.register("x", warehouse="pond")
    assert code == EXIT_BAD_CONFIG and "no warehouse pond" in report["error"] and "look at uri" in report["error"]
    code, report = world.register("x", uri=f"{world.server.uri}/elsewhere")
    assert code == EXIT_BAD_CONFIG and "look at uri" in report["error"]
    code, report = world.register("x", token_variable=None)
    assert code == EXIT_BAD_CONFIG and "token_variable or credential_variable" in report["error"]
    code, report = world.register("x", token_variable="GEOSIEVE_NO_SUCH_VARIABLE")
    assert code == EXIT_BAD_CONFIG and "GEOSIEVE_NO_SUCH_VARIABLE is not set" in report["error"]


@pytest.mark.parametrize(
    "change",
    [
        {"uri": "http://key:secret@host"},
        {"uri": "http://host/?token=secret"},
        {"token": "secret"},
        {"token_variable": "the-secret.itself"},
        {"credential_variable": CREDENTIAL, "token_variable": TOKEN},
        {"scope": SCOPE},
    ],
)
def test_what_a_configuration_may_not_hold(world: World, change: dict[str, str]) -> None:
    code, report = world.register("x", **change)
    assert code == EXIT_BAD_CONFIG and next(iter(change)) in report["error"]
    assert "secret" not in report["error"]


def test_no_secret_in_events_or_tables(world: World) -> None:
    """Spark's event log, from which its UI is made, has the settings of a session, but no secret.

    Spark hides settings called token, but not those called credential.
    """
    events = world.root / "events"
    events.mkdir()
    jvm: Any = world.spark._jvm
    context: Any = world.spark.sparkContext._jsc.sc()  # type: ignore[attr-defined]
    log = jvm.org.apache.spark.scheduler.EventLoggingListener(
        *("told", jvm.scala.Option.empty(), jvm.java.net.URI(f"file://{events}")),
        *(context.getConf(), context.hadoopConfiguration()),
    )
    log.start()
    context.addSparkListener(log)
    try:
        assert world.register("told", credential_variable=CREDENTIAL, scope=SCOPE)[0] == EXIT_DONE
        assert world.counts("told") == RUNS
        context.listenerBus().waitUntilEmpty()
    finally:
        context.removeSparkListener(log)
        log.stop()
    (written,) = [path for path in events.iterdir() if not path.name.endswith(".crc")]
    assert f'"spark.sql.catalog.{CATALOG}.credential":"env:{CREDENTIAL}"' in written.read_text()
    kept = [file for file in (world.root / "server").rglob("*") if file.is_file()]
    content = b"".join(file.read_bytes() for file in [written, *kept])
    assert b"ranked_regions" in content
    for secret in (os.environ[TOKEN], os.environ[CREDENTIAL].split(":")[1]):
        assert secret.encode() not in content


def test_retired_runs_leave_it(world: World) -> None:
    assert world.register("left")[0] == EXIT_DONE
    chosen = {**world.config("left"), "tables": ["ranked_regions", "image_summary"], "retire": {"runs": ["r2"]}}
    _, report = world.job("retire_runs", chosen)
    code, report = world.job("retire_runs", {**chosen, "checksum": report["details"]["checksum"]})
    assert code == EXIT_DONE and report["details"]["retired"] == 2, report["error"]
    assert world.counts("left") == {"r1": RUNS["r1"]}
