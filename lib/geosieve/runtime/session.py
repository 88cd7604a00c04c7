"""The Spark session: Sedona registered, UTC, Arrow on. A session made elsewhere is used and never stopped."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from pyspark.sql import SparkSession

from geosieve.runtime import jars, java
from geosieve.runtime.errors import ConfigError

SETTINGS = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    # A table from pandas goes to the tasks as Arrow. Below this size Spark makes rows of it in the driver first, which
    # takes four times as long for 400,000 rows.
    "spark.sql.execution.arrow.localRelationThreshold": "0b",
    # Spark's default is INT96, which neither Athena's nor Trino's timestamp(6) columns expect.
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    # Spark else ends a job at a time before 1900, for Spark 2 wrote those by another calendar in local time. Ours are
    # UTC and of the Gregorian calendar, before 1582, too.
    "spark.sql.parquet.datetimeRebaseModeInWrite": "CORRECTED",
    "spark.sql.parquet.datetimeRebaseModeInRead": "CORRECTED",
    "spark.sql.parquet.int96RebaseModeInWrite": "CORRECTED",
    "spark.sql.parquet.int96RebaseModeInRead": "CORRECTED",
    # Spark else refuses a Parquet file that has a column of nanoseconds, pandas' default, anywhere.
    "spark.sql.legacy.parquet.nanosAsLong": "true",
}
"""Set on every session that jobs use, also on one made elsewhere: results depend on them."""

_STATIC = {
    "spark.serializer": "org.apache.spark.serializer.KryoSerializer",
    "spark.kryo.registrator": "org.apache.sedona.core.serde.SedonaKryoRegistrator",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",  # geosieve.runtime.progress shows it, on terminals only
}


@contextmanager
def spark_session(app_name: str, local: bool) -> Iterator[SparkSession]:
    """Yield a session with Sedona; stop it at the end only if it was made here.

    The master is whatever spark-submit says; `local` means all cores of this machine.
    Raises ConfigError for a wrong Java or Spark, and for missing jars, with their coordinates.
    """
    existing = SparkSession.getActiveSession()
    if existing is not None:
        yield _prepared(existing)
        return
    # A worker that takes another interpreter than the driver's lacks this package.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.appName(app_name)
    if local:
        builder = builder.master("local[*]")
    for key, value in _STATIC.items():
        builder = builder.config(key, value)
    try:
        spark = builder.getOrCreate()
    except Exception as failure:
        java.explain_failed_start(failure)
        raise
    try:
        yield _prepared(spark)
    finally:
        spark.stop()


def _prepared(spark: SparkSession) -> SparkSession:
    if not spark.version.startswith("3.5."):
        raise ConfigError(f"Spark {spark.version} is not supported", hint="use Spark 3.5 with Scala 2.12")
    java.check(spark)
    jars.check(spark)
    for key, value in SETTINGS.items():
        spark.conf.set(key, value)
    from sedona.spark import SedonaContext

    SedonaContext.create(spark)  # registers Sedona in this very session
    return spark
