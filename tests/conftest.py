"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from pyspark.sql import SparkSession

from geosieve.runtime.session import spark_session


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    options = "--master local[2] --driver-memory 2g --conf spark.sql.shuffle.partitions=4"
    os.environ.setdefault("PYSPARK_SUBMIT_ARGS", f"{options} pyspark-shell")
    with spark_session("geosieve tests", local=False) as session:
        yield session
