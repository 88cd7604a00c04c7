"""`report_archive`: what its page says, against the tables and by hand."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession
from small_answers import HOSTILE, World, data_of

from geosieve.runtime.errors import EXIT_BAD_CONFIG, EXIT_BAD_INPUT, EXIT_DONE

LONG = "z" * 10_000
MANY = 10_000


@pytest.fixture(scope="module")
def world(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> World:
    """Ranking `photos` of photographs with hostile names; ranking `points`, whose true places are known."""
    made = World(tmp_path_factory.mktemp("page"), spark)
    made.photographs("photos", HOSTILE)
    rng = np.random.default_rng(0)
    ids = [*HOSTILE, LONG, "broken"]
    p = [rng.dirichlet(np.full(n, 0.5), len(ids)) for n in (10, 6)]
    p[0][-1] = np.nan  # refused
    made.rank("photos", "r1", "photos", ids, p, cut={"by": "mass", "at": 0.99})
    return made


def test_a_page_has_every_image_and_its_regions(world: World) -> None:
    code, report = world.page("all.html", "photos")
    assert code == EXIT_DONE, report["error"]
    print(report)
