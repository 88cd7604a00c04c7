"""Archives on a store that fails: asked again within a budget, or a clear end, and never a reject of a good archive."""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import boto3
import pyarrow as pa
import pytest
import s3_archives
from fabricated_archives import tar_of, zip_of
from s3_server import Request, S3Server

KEYS = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1", "AWS_HTTPS": "NO"}
_NOISE = random.Random(0)
MEMBERS = {f"{number}.jpg": _NOISE.randbytes(400_000) for number in range(8)}


def zstd(content: bytes) -> bytes:
    return pa.compress(content, "zstd", asbytes=True)


ARCHIVES = {
    "a.zip": zip_of(MEMBERS),
    "a.tar": tar_of(MEMBERS),
    "a.tar.gz": gzip.compress(tar_of(MEMBERS), 1),
    "a.tar.bz2": bz2.compress(tar_of(MEMBERS), 1),
    "a.tar.xz": lzma.compress(tar_of(MEMBERS), preset=0),
    "a.tar.zst": zstd(tar_of(MEMBERS)),
}
FAR = 2_000_000  # bytes from the start; what fails only from there on has been opened and read in part


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    server = S3Server()
    keys = {"aws_access_key_id": "id", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
    client: Any = boto3.client("s3", endpoint_url=f"http://{server.endpoint}", **keys)
    client.create_bucket(Bucket="scans")
    for name, content in ARCHIVES.items():
        client.put_object(Bucket="scans", Key=name, Body=content)
    yield server
    server.close()


def read(server: S3Server) -> list[str]:
    """What `s3_archives` prints of each archive."""
    environment = {**KEYS, "AWS_S3_ENDPOINT": server.endpoint, "PYTHONPATH": ":".join(sys.path)}
    command = [sys.executable, s3_archives.__file__, *(f"s3a://scans/{name}" for name in ARCHIVES)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def far(request: Request) -> bool:
    first = request.range.removeprefix("bytes=").partition("-")[0]
    return request.method == "GET" and first.isdigit() and int(first) > FAR


WHOLE = [str(len(MEMBERS))] * len(ARCHIVES)


@pytest.mark.parametrize("status", [503, None])
def test_a_store_that_fails_twice_is_asked_again(server: S3Server, status: int | None) -> None:
    with server.refusing(status, far, times=2) if status else server.breaking_off(far, times=2):
        assert read(server) == WHOLE


@pytest.mark.parametrize(("status", "error"), [(503, "RetryableError"), (400, "InputError"), (403, "InputError")])
def test_a_store_that_goes_on_failing_is_no_fault_of_the_archive(server: S3Server, status: int, error: str) -> None:
    with server.refusing(status, far):
        told = read(server)
    assert [line.partition(":")[0] for line in told] == [error] * len(ARCHIVES), told
