"""Fixtures shared by all tests, and the order of files."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator

import pytest
from hypothesis import settings
from pyspark.sql import SparkSession
from tuned_spark import JVM, TUNED

from geosieve.runtime.session import spark_session

# Clusters, servers, demos, and files of many Spark jobs, about the longest first.
_SLOW = (
    *("test_geolocate_archive", "test_s3_scans", "test_s3_store", "test_train_predictor"),
    *("test_horovod", "test_killed_scans", "test_build_splits", "test_demos"),
    *("test_register_tables", "test_retire_runs", "test_evaluate", "test_killed_processes"),
    *("test_killed_chips", "test_s3_chips", "test_killed_pixels", "test_killed_strips"),
    *("test_loop", "test_s3_strips", "test_glue", "test_build_partitions"),
    *("test_learned_scenes", "test_demo_chips", "test_hostile_folder", "test_build_pairs"),
    *("test_s3_training", "test_ingest_lists", "test_label_attributes", "test_publish_kills"),
    *("test_driver_memory", "test_publish_races", "test_build_overlay", "test_dry_runs"),
    *("test_how_to", "test_s3_rasters", "test_s3_config", "test_spark_submit"),
    *("test_prepare_training_set", "test_fit_ensemble", "test_rank_regions", "test_archive_page"),
    *("test_export_regions", "test_notebooks", "test_compact", "test_airflow"),
    *("test_atom_cells", "test_harvest_flickr", "test_ready_queries", "test_ingest_archives"),
    *("test_ingest_listed", "test_s3_archives", "test_publish_interleavings", "test_ingest_photos"),
    *("test_prepare_strips", "test_cut_chips", "test_publish_shards", "test_full_disk", "test_rest_catalog"),
)

settings.register_profile("untimed", deadline=None)  # no test may depend on how busy the machine is
settings.load_profile("untimed")

# Two processes test at a time, and threads of PyTorch that wait for others on the same core burn most of their time.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("SPARK_SUBMIT_OPTS", JVM)  # what tests start with spark-submit, a demo or an interpreter
# Spark's JVM knows the environment of its start only; test_rest_catalog needs secrets there.
os.environ["GEOSIEVE_TEST_TOKEN"] = "tokenThatNobodyMayPrint"
os.environ["GEOSIEVE_TEST_CREDENTIAL"] = "the-client:credentialThatNobodyMayPrint"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put slow files first, so that processes that share the files end at about the same time, and mark them."""
    places = {name: place for place, name in enumerate(_SLOW)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))
    for item in items:
        if item.path.stem in places:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    options = ["--master", "local[2]", "--driver-memory", "2g", *TUNED, "pyspark-shell"]
    os.environ.setdefault("PYSPARK_SUBMIT_ARGS", shlex.join(options))
    with spark_session("geosieve tests", local=False) as session:
        yield session
