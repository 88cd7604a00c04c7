"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator

import pytest
from pyspark.sql import SparkSession
from tuned_spark import TUNED

from geosieve.runtime.session import spark_session


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    options = ["--master", "local[2]", "--driver-memory", "2g", *TUNED, "pyspark-shell"]
    os.environ.setdefault("PYSPARK_SUBMIT_ARGS", shlex.join(options))
    with spark_session("geosieve tests", local=False) as session:
        yield session
