"""Fixtures of the tests of splits."""

from __future__ import annotations

import pandas as pd
import pytest
from pyspark.sql import SparkSession
from splitting import Splitting, Tables, synthetic_images


@pytest.fixture(scope="module")
def pool() -> pd.DataFrame:
    """3,000 synthetic images of source `pool`."""
    return synthetic_images(3000)


@pytest.fixture(scope="module")
def bench() -> pd.DataFrame:
    """200 synthetic images of source `bench`: other places and sequences, some of the same authors and ids."""
    images = synthetic_images(200, seed=1)
    return images.assign(sequence="", lat=images["lat"].clip(-60, 60))


@pytest.fixture(scope="module")
def tables(
    spark: SparkSession, tmp_path_factory: pytest.TempPathFactory, pool: pd.DataFrame, bench: pd.DataFrame
) -> Tables:
    made = Tables(tmp_path_factory.mktemp("splits"))
    made.ingest_images(pool, "pool")
    made.ingest_images(bench, "bench")
    made.label_by_boxes()
    return made


@pytest.fixture
def split(tables: Tables) -> Splitting:
    return Splitting(tables)
