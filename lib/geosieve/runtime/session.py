"""The Spark session: Sedona registered, time zone UTC, Arrow on.

A session that was created elsewhere is used and never stopped.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

from pyspark.sql import SparkSession

from geosieve.runtime import jars, java
from geosieve.runtime.errors import ConfigError

SETTINGS = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    # Every table from pandas goes to the tasks as Arrow. Below this threshold, Spark would first convert it to rows in
    # the driver, which takes four times as long for 400,000 rows.
    "spark.sql.execution.arrow.localRelationThreshold": "0b",
    # Spark's default is INT96, which the timestamp(6) columns of Athena and Trino do not expect.
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    # By default, Spark fails on timestamps before 1900, because Spark 2 wrote them in another calendar and in local
    # time. Ours are in UTC and in the Gregorian calendar, even before 1582.
    "spark.sql.parquet.datetimeRebaseModeInWrite": "CORRECTED",
    "spark.sql.parquet.datetimeRebaseModeInRead": "CORRECTED",
    "spark.sql.parquet.int96RebaseModeInWrite": "CORRECTED",
    "spark.sql.parquet.int96RebaseModeInRead": "CORRECTED",
    # By default, Spark refuses every Parquet file with a column of nanoseconds, which is pandas' default, even if the
    # column is not used.
    "spark.sql.legacy.parquet.nanosAsLong": "true",
}
"""Settings of every session that jobs use, also of one created elsewhere, because results depend on them."""

_STATIC = {
    "spark.serializer": "org.apache.spark.serializer.KryoSerializer",
    "spark.kryo.registrator": "org.apache.sedona.core.serde.SedonaKryoRegistrator",
    # Hadoop sums up files on local disks every 512 bytes by default, which costs a task that writes pictures a seventh
    # of its time.
    "spark.hadoop.file.bytes-per-checksum": "65536",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",  # geosieve.runtime.progress shows it, on terminals only
}

_LOCAL = "local[*,2]"
"""All cores of this machine, and a second attempt of a task whose worker crashed. With `local[*]` there is only one."""

DAEMON = "geosieve.runtime.daemon"
"""Not imported: PySpark's daemon, on which it builds, is for the process that Spark starts."""

_checked: WeakSet[SparkSession] = WeakSet()
"""Sessions that need not be checked again."""

_JAVA_NAMES = (
    *("functions", "PythonUtils", "SparkSession", "SparkSession$", "java.lang.Class"),
    *("org.apache.hadoop.fs.Path", "org.apache.commons.io.IOUtils"),
)
"""Names of Java classes that PySpark and this package look up for almost every column and file."""


@contextmanager
def spark_session(app_name: str, local: bool) -> Iterator[SparkSession]:
    """Yield a session with Sedona; stop it at the end only if it was created here.

    With `local`, the master is all cores of this machine; otherwise spark-submit sets it. If there is an active
    session, it is used, and `app_name` and `local` are ignored. Raises ConfigError if the version of Java or Spark is
    not supported, or if a jar is missing or has another version; the message gives the jars' coordinates.
    """
    existing = SparkSession.getActiveSession()
    if existing is not None:
        yield _prepared(existing)
        return
    # Workers must use the driver's interpreter; another one lacks this package.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.appName(app_name)
    if local:
        builder = builder.master(_LOCAL)
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
    if spark not in _checked:
        _check(spark)
        _checked.add(spark)
    for key, value in SETTINGS.items():
        spark.conf.set(key, value)
    return spark


def _check(spark: SparkSession) -> None:
    """Check versions and jars, and register Sedona's types and functions in the session."""
    if not spark.version.startswith("3.5."):
        raise ConfigError(f"Spark {spark.version} is not supported", hint="use Spark 3.5 with Scala 2.12")
    java.check(spark)
    jars.check(spark)
    _look_up_names(spark)
    _use_own_daemon(spark)
    # Else Sedona tells a server of its makers' of each session.
    spark._jvm.java.lang.System.setProperty("DO_NOT_TRACK", "true")  # type: ignore[union-attr]
    from sedona.spark import SedonaContext

    SedonaContext.create(spark)


def _look_up_names(spark: SparkSession) -> None:
    """Look up _JAVA_NAMES once, and keep the results where PySpark looks first.

    py4j keeps no name: for each column of an expression it asks the JVM, which searches all jars, several times over,
    before it finds the class. That took a quarter of the time of a job on small tables.
    """
    for name in _JAVA_NAMES:
        scope: Any = spark._jvm
        for part in name.split("."):
            setattr(scope, part, getattr(scope, part))
            scope = getattr(scope, part)


def _use_own_daemon(spark: SparkSession) -> None:
    """On one machine, fork workers from a daemon that has imported their libraries.

    Executors on other machines may have this package only from `--py-files`, which a daemon does not see: there the
    setting is for whoever submits the job (docs/cluster.md). Spark reads it when the first worker starts.
    """
    jvm: Any = spark._jvm
    if spark.sparkContext._jsc.isLocal():
        jvm.org.apache.spark.SparkEnv.get().conf().setIfMissing("spark.python.daemon.module", DAEMON)
