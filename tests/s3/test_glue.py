"""Committed runs on S3 in a catalogue of AWS Glue: registered, switched and retired, without a secret left behind."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from pyspark.sql import SparkSession
from s3_server import S3Server
from small_rankings import REGIONS, TABLES, publish
from tuned_spark import TUNED
from workspace import JOBS, Report, Workspace

from geosieve.runtime import jars
from geosieve.runtime.errors import EXIT_BAD_CONFIG, EXIT_DONE, EXIT_NOTHING_TO_DO, ConfigError
from geosieve.sql.compact import compact
from geosieve.sql.config import CompactConfig, RegisterConfig, RetireConfig
from geosieve.sql.iceberg import CATALOG
from geosieve.sql.register import register_tables
from geosieve.sql.retire import retire_runs

KEY_ID, SECRET = "AKIDFORGEOSIEVEGLUE", "gl3eSecretOfTheTestsThatNobodyMayPrint"
BUCKET = "glued"
TABLES_ROOT = f"s3a://{BUCKET}/tables"
JOBS_HERE = {
    "register_tables": (RegisterConfig, register_tables),
    "retire_runs": (RetireConfig, retire_runs),
    "compact": (CompactConfig, compact),
}


class Glue(Workspace):
    """Moto's S3 and Glue behind one address, and the tests' session told of it."""

    def __init__(self, root: Path, spark: SparkSession) -> None:
        super().__init__(root)
        self.spark, self.jobs = spark, {**JOBS, **JOBS_HERE}
        self.server = S3Server()
        self.url = f"http://{self.server.endpoint}"
        keys = {"aws_access_key_id": KEY_ID, "aws_secret_access_key": SECRET, "region_name": "us-east-1"}
        self.client: Any = boto3.client("s3", endpoint_url=self.url, **keys)
        self.client.create_bucket(Bucket=BUCKET)
        self.glue: Any = boto3.client("glue", endpoint_url=self.url, **keys)

    def config(self, **change: Any) -> dict[str, Any]:
        catalog = {
            **{"kind": "glue", "warehouse": f"s3://{BUCKET}/iceberg"},
            **{"endpoint": self.url, "s3_endpoint": self.url},
        }
        return {"root": TABLES_ROOT, "catalog": catalog, **change}

    def job(self, job: str, **change: Any) -> Report:
        path = self.root / f"{job}.json"
        config = self.config(**change)
        path.write_text(json.dumps({k: v for k, v in config.items() if k != "catalog" or job != "compact"}))
        return self.command(job, path)

    def counts(self, namespace: str, table: str = "ranked_regions") -> dict[str, int]:
        rows = self.spark.sql(f"SELECT run_id, count(*) FROM {CATALOG}.{namespace}.{table} GROUP BY run_id").collect()
        return {row[0]: row[1] for row in rows}

    def keys(self, prefix: str) -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return [entry["Key"] for page in pages for entry in page.get("Contents", ())]


@pytest.fixture(scope="module")
def glue(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Glue]:
    made = Glue(tmp_path_factory.mktemp("glue"), spark)
    system: Any = spark._jvm.java.lang.System  # type: ignore[union-attr]
    # In the place of environment variables, which a running JVM cannot get.
    properties = {"aws.accessKeyId": KEY_ID, "aws.secretAccessKey": SECRET, "aws.region": "us-east-1"}
    hadoop: Any = spark.sparkContext._jsc.hadoopConfiguration()  # type: ignore[attr-defined]
    options = {
        **{"fs.s3a.endpoint": made.url, "fs.s3a.path.style.access": "true"},
        **{"fs.s3a.access.key": KEY_ID, "fs.s3a.secret.key": SECRET},
    }
    for name, value in properties.items():
        system.setProperty(name, value)
    for name, value in options.items():
        hadoop.set(name, value)
    try:
        publish(spark, TABLES_ROOT, "r1", ["a", "b"])
        publish(spark, TABLES_ROOT, "r2", ["c"], {"copy_of_a": ("r1", "a")})
        yield made
    finally:
        for name in properties:
            system.clearProperty(name)
        for name in options:
            hadoop.unset(name)
        made.server.close()


def test_registered_once_and_readable(glue: Glue) -> None:
    code, report = glue.job("register_tables", namespace="once")
    assert code == EXIT_DONE and report["rows_out"] == 2 * len(TABLES), report["error"]
    assert glue.counts("once") == {"r1": 2 * REGIONS, "r2": REGIONS}
    assert glue.counts("once", "image_summary") == {"r1": 2, "r2": 2}
    assert glue.job("register_tables", namespace="once")[0] == EXIT_NOTHING_TO_DO
    names = {table["Name"] for table in glue.glue.get_tables(DatabaseName="once")["TableList"]}
    assert names == {table.name for table in TABLES}
    files = glue.spark.sql(f"SELECT file_path FROM {CATALOG}.once.ranked_regions.files").collect()
    assert files and all(row[0].startswith(f"s3://{BUCKET}/tables/") for row in files)  # Athena reads no s3a://


SCRIPT = """
import sys
from geosieve.job.main import main
from geosieve.sql.config import RegisterConfig
from geosieve.sql.register import JOB, register_tables
sys.exit(main(JOB, RegisterConfig, register_tables, ["--config", sys.argv[1], "--local"]))
"""


def test_of_two_at_once_each_run_lands_once_and_no_secret_is_told(glue: Glue) -> None:
    path = glue.root / "race.json"
    path.write_text(json.dumps(glue.config(namespace="race")))
    s3a = {"spark.hadoop.fs.s3a.endpoint": glue.url, "spark.hadoop.fs.s3a.path.style.access": "true"}
    options = [*TUNED, *(word for name, value in s3a.items() for word in ("--conf", f"{name}={value}"))]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYSPARK_", "SPARK_"))} | {
        **{"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "us-east-1"},
        "PYSPARK_SUBMIT_ARGS": shlex.join([*options, "pyspark-shell"]),
    }
    command = [sys.executable, "-c", SCRIPT, str(path)]
    both = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)
    ]
    told = b""
    for process in both:
        out, log = process.communicate(timeout=300)
        assert process.returncode in (EXIT_DONE, EXIT_NOTHING_TO_DO), log[-3000:]
        told += out + log
    assert glue.job("register_tables", namespace="race")[0] == EXIT_NOTHING_TO_DO
    assert glue.counts("race") == {"r1": 2 * REGIONS, "r2": REGIONS}
    for key in glue.keys("iceberg/"):
        told += glue.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    told += repr(glue.glue.get_tables(DatabaseName="race")).encode()
    assert b"ranked_regions" in told and SECRET.encode() not in told


def test_compacted_and_retired_on_s3(glue: Glue) -> None:
    publish(glue.spark, TABLES_ROOT, "r1", ["x"], ranking="short")
    publish(glue.spark, TABLES_ROOT, "r2", ["y"], {"copy_of_x": ("r1", "x")}, ranking="short")
    glue.job("register_tables", namespace="kept")
    code, report = glue.job("compact", ranking="short")
    assert code == EXIT_DONE, report["error"]
    code, report = glue.job("register_tables", namespace="kept")
    assert code == EXIT_DONE, report["error"]
    short = f"SELECT DISTINCT run_id FROM {CATALOG}.kept.ranked_regions WHERE ranking = 'short'"
    assert [row[0] for row in glue.spark.sql(short).collect()] == ["compact-000001"]
    chosen = {"retire": {"replaced": True}, "namespace": "kept", "grace_days": 0}
    _, report = glue.job("retire_runs", **chosen)
    code, report = glue.job("retire_runs", **chosen, checksum=report["details"]["checksum"])
    assert code == EXIT_DONE and report["details"]["deleted"] == 2 * 3, report["error"]
    left = {key.split("/")[3] for key in glue.keys("tables/ranked_regions/ranking=short/")}
    assert left == {"run_id=compact-000001"}
    assert glue.counts("kept") == {"r1": 2 * REGIONS, "r2": REGIONS, "compact-000001": 2 * REGIONS}


def test_a_session_without_the_jar_says_how_to_get_it(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = (jars.Jar("org.example", "absent", "1.0", "org.example.absent.Thing", "0" * 64),)
    monkeypatch.setattr(jars, "ICEBERG_AWS", absent)
    with pytest.raises(ConfigError, match=r"geosieve\.runtime\.jars .* aws"):
        jars.check(spark, jars.ICEBERG_AWS)


@pytest.mark.parametrize(
    "change",
    [{"endpoint": "http://key:secret@host"}, {"warehouse": "s3a://bucket/iceberg"}, {"secret_access_key": "x"}],
)
def test_what_a_configuration_may_not_hold(glue: Glue, change: dict[str, str]) -> None:
    config = glue.config()
    code, report = glue.job("register_tables", catalog={**config["catalog"], **change})
    assert code == EXIT_BAD_CONFIG and next(iter(change)) in report["error"]
    assert "key:secret" not in report["error"]
