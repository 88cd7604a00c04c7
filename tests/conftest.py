"""Fixtures shared by all tests, and the order of files."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator

import pytest
from pyspark.sql import SparkSession
from tuned_spark import TUNED

from geosieve.runtime.session import spark_session

# The longest files first, so that processes that share the files end at about the same time.
_LONGEST = (
    *("test_killed_processes", "test_s3_store", "test_demos", "test_evaluate", "test_build_splits"),
    *("test_build_partitions", "test_ingest_lists", "test_label_attributes"),
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the files."""
    places = {name: place for place, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    options = ["--master", "local[2]", "--driver-memory", "2g", *TUNED, "pyspark-shell"]
    os.environ.setdefault("PYSPARK_SUBMIT_ARGS", shlex.join(options))
    with spark_session("geosieve tests", local=False) as session:
        yield session
