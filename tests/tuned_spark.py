"""Options of Spark for many small jobs: compiling their expressions takes longer than running them.

Demos and jobs under spark-submit are tested without TUNED, with the code that Spark generates for users.
"""

from __future__ import annotations

from pathlib import Path

ARCHIVE = Path(__file__).resolve().parents[1] / "build" / "tests" / "classes.jsa"
"""What `class_archive.py` makes; the tests pass without it."""

# No JVM of the tests runs one piece of code so often that the second compiler pays off. With the first alone, room for
# compiled code is small by default: Java throws code away and compiles it again.
_SMALL_JOBS = (
    "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -XX:ReservedCodeCacheSize=240m -XX:MetaspaceSize=240m -XX:NewSize=300m"
)
# The archive belongs to the jars of the installed Spark in their folder; a JVM that finds others goes on without it.
_CLASSES = f"-XX:SharedArchiveFile={ARCHIVE} -Xlog:disable -Xlog:all=error:stderr"
JVM = f"{_SMALL_JOBS} {_CLASSES}" if ARCHIVE.exists() else _SMALL_JOBS
"""For all JVMs: drivers, executors, and what spark-submit starts."""

TUNED = [
    *("--conf", "spark.sql.shuffle.partitions=2"),
    *("--conf", "spark.sql.codegen.wholeStage=false"),
    *("--conf", "spark.sql.codegen.factoryMode=NO_CODEGEN"),
    # By default every sort and every table that is joined by its hash begins with 16 MB or more.
    *("--conf", "spark.buffer.pageSize=1m"),
    *("--conf", f"spark.driver.extraJavaOptions={JVM}"),
    *("--conf", f"spark.executor.extraJavaOptions={JVM}"),
]
