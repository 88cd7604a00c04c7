"""Statements for SQL engines about tables on S3 are those of the same tables on a disk, made without Spark."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import small_queries
from s3_server import S3Server

KEYS = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1", "AWS_HTTPS": "NO"}


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("views") / "tables"
    small_queries.write(root)
    return root


@pytest.fixture(scope="module")
def server(local: Path) -> Iterator[S3Server]:
    server = S3Server()
    keys = {"aws_access_key_id": "id", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
    client: Any = boto3.client("s3", endpoint_url=f"http://{server.endpoint}", **keys)
    client.create_bucket(Bucket="answers")
    for path in local.rglob("*"):
        if path.is_file():
            client.put_object(Bucket="answers", Key=f"tables/{path.relative_to(local)}", Body=path.read_bytes())
    yield server
    server.close()


def told(server: S3Server, module: str, *arguments: str) -> str:
    environment = {**KEYS, "AWS_S3_ENDPOINT": server.endpoint, "PYTHONPATH": ":".join(sys.path), "PATH": "/nowhere"}
    command = [sys.executable, "-m", f"geosieve.sql.{module}", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_views_are_over_the_same_files(server: S3Server, local: Path) -> None:
    remote = told(server, "duckdb", "s3a://answers/tables")
    assert remote == told(server, "duckdb", str(local)).replace(f"'{local}/", "'s3://answers/tables/")
    assert "s3://answers/tables/ranked_regions/ranking=example/" in remote and small_queries.R3 not in remote


def test_hive_tables_are_of_the_same_columns_and_runs(server: S3Server, local: Path) -> None:
    location = ("--location", "s3://answers/tables")
    remote = told(server, "hive", "s3a://answers/tables", *location)
    assert remote == told(server, "hive", str(local), *location) and "`bands` bigint" in remote
