"""Options of Spark for many small jobs: compiling their expressions takes longer than running them.

Demos and jobs under spark-submit are tested without TUNED, with the code that Spark generates for users.
"""

from __future__ import annotations

JVM = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
"""For all of them: no session of the tests runs one piece of code so often that the JVM's second compiler pays off."""

TUNED = [
    *("--conf", "spark.sql.shuffle.partitions=2"),
    *("--conf", "spark.sql.codegen.wholeStage=false"),
    *("--conf", "spark.sql.codegen.factoryMode=NO_CODEGEN"),
    *("--conf", f"spark.driver.extraJavaOptions={JVM}"),
    *("--conf", f"spark.executor.extraJavaOptions={JVM}"),
]
