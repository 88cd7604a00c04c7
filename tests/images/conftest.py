"""Fixtures of the tests of images."""

from __future__ import annotations

from pathlib import Path

import pytest
from ingesting import Ingest
from pyspark.sql import SparkSession


@pytest.fixture
def ingest(spark: SparkSession, tmp_path: Path) -> Ingest:
    return Ingest(spark, tmp_path)
