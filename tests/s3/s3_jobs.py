"""A driver of its own whose jobs work with an S3 server of the test."""

from __future__ import annotations

import io
import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import boto3
import pyarrow.parquet as pq
from job_client import JobServer
from s3_server import S3Server

KEY_ID, SECRET = "AKIDFORGEOSIEVETESTS", "s3cr3tOfTheTestsThatNobodyMayPrint"

# What a user would give to spark-submit; attempts and pauses are small, so that giving up takes seconds.
SETTINGS = {
    "spark.hadoop.fs.s3a.path.style.access": "true",
    "spark.hadoop.fs.s3a.connection.ssl.enabled": "false",
    "spark.hadoop.fs.s3a.attempts.maximum": "2",
    "spark.hadoop.fs.s3a.retry.limit": "2",
    "spark.hadoop.fs.s3a.retry.interval": "50ms",
    "spark.hadoop.fs.s3a.retry.throttle.limit": "3",
    "spark.hadoop.fs.s3a.retry.throttle.interval": "50ms",
}
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": KEY_ID,
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_REGION": "us-east-1",
    "AWS_HTTPS": "NO",
    "AWS_VIRTUAL_HOSTING": "FALSE",
    "GDAL_HTTP_MAX_RETRY": "3",
    "GDAL_HTTP_RETRY_DELAY": "0.1",
}


class JobStore:
    """The server with a bucket, a client to look into it from outside, and a driver that works with it."""

    def __init__(self, root: Path, bucket: str, environment: Mapping[str, str] | None = None) -> None:
        logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
        self.root, self.bucket = root, bucket
        self.server = S3Server()
        url = f"http://{self.server.endpoint}"
        keys = {"aws_access_key_id": KEY_ID, "aws_secret_access_key": SECRET, "region_name": "us-east-1"}
        self.client: Any = boto3.client("s3", endpoint_url=url, **keys)
        self.client.create_bucket(Bucket=bucket)
        self.settings = {"spark.hadoop.fs.s3a.endpoint": url, **SETTINGS}
        self.environment = {"AWS_S3_ENDPOINT": self.server.endpoint, **ENVIRONMENT, **(environment or {})}
        self.driver = JobServer(root / "server", "local[2]", self.settings, self.environment)

    def close(self) -> None:
        self.driver.close()
        self.server.close()

    def keys(self, prefix: str) -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    def read(self, key: str) -> bytes:
        body: bytes = self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        return body

    def manifest(self, leaf: str) -> dict[str, Any]:
        manifest: dict[str, Any] = json.loads(self.read(f"{leaf}/_SUCCESS"))
        return manifest

    def rows(self, leaf: str) -> list[dict[str, Any]]:
        """All rows of a committed leaf."""
        files = [io.BytesIO(self.read(f"{leaf}/{entry['name']}")) for entry in self.manifest(leaf)["files"]]
        return [row for file in files for row in pq.ParquetFile(file).read().to_pylist()]

    def settle(self) -> None:
        """Wait until nobody asks any more: tasks of a run that was given up outlive it for a moment."""
        end, before = time.monotonic() + 30, -1
        while before != (before := len(self.server.requests)) and time.monotonic() < end:
            time.sleep(1.0)
