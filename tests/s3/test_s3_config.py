"""Configurations on S3: read before a session is there, refused or to be tried again by what the store answers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from s3_server import S3Server

from geosieve.runtime.errors import EXIT_BAD_CONFIG, EXIT_RETRYABLE

KEYS = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1", "AWS_HTTPS": "NO"}


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    server = S3Server()
    keys = {"aws_access_key_id": "id", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
    client: Any = boto3.client("s3", endpoint_url=f"http://{server.endpoint}", **keys)
    client.create_bucket(Bucket="conf")
    client.put_object(Bucket="conf", Key="koppen.yaml", Body=b"kind: s2\nlevel: 4\n")
    client.put_object(Bucket="conf", Key="latin.yaml", Body="title: Köppen".encode("latin-1"))
    yield server
    server.close()


def read(server: S3Server, uri: str) -> tuple[int, str]:
    """Exit code, and what a process of its own prints: pyarrow asks while it holds Python's lock."""
    program = (
        "import sys; from geosieve.runtime.config import read_yaml; from geosieve.runtime.errors import GeosieveError\n"
        "try: print(read_yaml(sys.argv[1]))\n"
        "except GeosieveError as error: print(error); sys.exit(error.exit_code)"
    )
    environment = {**KEYS, "AWS_S3_ENDPOINT": server.endpoint, "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program, uri], env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout.strip() or done.stderr


def test_a_configuration_is_read_by_its_uri(server: S3Server) -> None:
    assert read(server, "s3a://conf/koppen.yaml") == (0, "{'kind': 's2', 'level': 4}")


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("s3a://conf/no.yaml", "there is no such file"),
        ("s3a://conf/latin.yaml", "unreadable configuration"),
        ("ftp://conf/no.yaml", "no store has the scheme 'ftp'"),
    ],
)
def test_one_that_cannot_be_read_is_a_bad_configuration(server: S3Server, uri: str, reason: str) -> None:
    code, told = read(server, uri)
    assert code == EXIT_BAD_CONFIG and reason in told and uri in told


def test_a_store_that_refuses_or_is_down_is_told_apart(server: S3Server) -> None:
    with server.refusing(403, lambda request: "koppen" in request.path):
        assert read(server, "s3a://conf/koppen.yaml")[0] == EXIT_BAD_CONFIG
    with server.refusing(503, lambda request: "koppen" in request.path):
        assert read(server, "s3a://conf/koppen.yaml")[0] == EXIT_RETRYABLE
