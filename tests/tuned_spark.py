"""Options of Spark for many small jobs: compiling their expressions takes longer than running them.

Demos and jobs under spark-submit are tested without them, with the code that Spark generates for users.
"""

from __future__ import annotations

TUNED = [
    *("--conf", "spark.sql.shuffle.partitions=2"),
    *("--conf", "spark.sql.codegen.wholeStage=false"),
    *("--conf", "spark.sql.codegen.factoryMode=NO_CODEGEN"),
    *("--conf", "spark.driver.extraJavaOptions=-XX:+UseSerialGC"),
]
"""For the session that all tests of a process share."""

BRIEF = [
    *TUNED,
    *("--conf", "spark.driver.extraJavaOptions=-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"),
    *("--conf", "spark.executor.extraJavaOptions=-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"),
]
"""For a session of a few jobs, which is over before the JVM's second compiler has paid off."""
