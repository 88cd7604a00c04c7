"""Checks that Java 17 runs Spark.

geosieve is tested with Spark 3.5 and Sedona on Java 17. They fail with reflection errors on newer versions.
"""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING, Any

from geosieve.runtime.errors import ConfigError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

NEEDED = 17


def check(spark: SparkSession) -> None:
    """Raise ConfigError if the session's JVM is not Java 17."""
    jvm: Any = spark._jvm
    _refuse_other(str(jvm.System.getProperty("java.version")), str(jvm.System.getProperty("java.home")))


def explain_failed_start(failure: Exception) -> None:
    """After a failed start of a session, raise ConfigError if Java is missing or is not Java 17.

    Call it only after a failed start: `conf/spark-env.sh` may choose another Java, which this process cannot see.
    """
    home = os.environ.get("JAVA_HOME")
    command = f"{home}/bin/java" if home else "java"
    try:
        told = subprocess.run([command, "-version"], capture_output=True, text=True, check=False).stderr  # noqa: S603
    except OSError:
        raise _wrong("there is no Java", command) from failure
    version = re.search(r'version "([^"]+)"', told)
    if version:
        _refuse_other(version[1], command)


def _refuse_other(version: str, where: str) -> None:
    major = re.match(r"(?:1\.)?(\d+)", version)  # Java 8 calls itself 1.8
    if major is None or int(major[1]) != NEEDED:
        raise _wrong(f"this is Java {version}", where)


def _wrong(what: str, where: str) -> ConfigError:
    return ConfigError(
        f"{what}; Spark 3.5 needs Java {NEEDED} here",
        where=where,
        hint=f"set JAVA_HOME to a Java {NEEDED} (Debian: apt-get install openjdk-17-jre-headless)",
    )
