"""The JVM side's dependencies: pinned coordinates, declared once, and the check that they are there.

`python -m geosieve.runtime.jars DIR` puts them into a folder (a venv's `pyspark/jars`, or one that goes into a
cluster's image); `python -m geosieve.runtime.jars` prints them for `spark-submit --packages`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyspark

from geosieve.runtime.errors import ConfigError, RetryableError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@dataclass(frozen=True)
class Jar:
    """A Maven coordinate and one class in it, by which its presence is probed."""

    group: str
    artifact: str
    version: str
    probe: str

    @property
    def coordinate(self) -> str:
        return f"{self.group}:{self.artifact}:{self.version}"

    @property
    def file_name(self) -> str:
        return f"{self.artifact}-{self.version}.jar"


SPATIAL = (
    Jar(
        "org.apache.sedona",
        "sedona-spark-shaded-3.5_2.12",
        "1.8.1",  # the newest that is published complete for the Python package of the same version
        "org.apache.sedona.core.serde.SedonaKryoRegistrator",
    ),
    Jar("org.datasyslab", "geotools-wrapper", "1.8.1-33.1", "org.geotools.referencing.CRS"),  # Sedona 1.8.1's
)
S3 = (
    # hadoop-aws must be of the Hadoop that Spark 3.5 ships (3.3.4), and the SDK the one it was built with.
    Jar("org.apache.hadoop", "hadoop-aws", "3.3.4", "org.apache.hadoop.fs.s3a.S3AFileSystem"),
    Jar("com.amazonaws", "aws-java-sdk-bundle", "1.12.262", "com.amazonaws.services.s3.AmazonS3"),
    Jar(  # binds Spark's Parquet writer to the magic committer; 3.5.7 is the last published
        "org.apache.spark",
        "spark-hadoop-cloud_2.12",
        "3.5.7",
        "org.apache.spark.internal.io.cloud.PathOutputCommitProtocol",
    ),
)
ALL = SPATIAL + S3

# usepoms=false: exactly the jars named above and no transitive ones; Sedona's parent POM is not served everywhere.
_IVY_SETTINGS = """<ivysettings><settings defaultResolver="central"/><resolvers>
<ibiblio name="central" m2compatible="true" usepoms="false"/></resolvers></ivysettings>
"""


def check(spark: SparkSession, jars: tuple[Jar, ...] = SPATIAL) -> None:
    """Raise ConfigError if a jar is missing from the session's JVM or is of another version.

    Without this the session starts and the first job dies with a Kryo error that names no jar.
    """
    from py4j.java_gateway import JavaClass

    jvm: Any = spark._jvm
    for jar in jars:
        node = jvm
        for part in jar.probe.split("."):
            node = getattr(node, part)
        if not isinstance(node, JavaClass):
            raise _missing(f"jar {jar.coordinate} is not on Spark's class path")
        loaded = jvm.java.lang.Class.forName(
            jar.probe, False, jvm.java.lang.Thread.currentThread().getContextClassLoader()
        )
        found = str(loaded.getProtectionDomain().getCodeSource().getLocation().getPath()).rsplit("/", 1)[-1]
        if not found.endswith(jar.file_name):  # Ivy puts the group in front of the name
            raise _missing(f"{found} is on Spark's class path where {jar.coordinate} is needed")


def _missing(what: str) -> ConfigError:
    return ConfigError(
        what,
        where="Spark session",
        hint="run 'make jars DIR=$SPARK_HOME/jars', or add "
        f"--packages {','.join(jar.coordinate for jar in ALL)} "
        "--conf spark.jars.ivySettings=<settings with usepoms=false, see docs/cluster.md>",
    )


def fetch(folder: Path) -> list[Path]:
    """Put every jar into `folder` through Spark's own Ivy; nothing is fetched when all are there.

    Raises RetryableError with Ivy's last lines when the repository cannot be reached.
    """
    wanted = [folder / jar.file_name for jar in ALL]
    if all(path.exists() for path in wanted):
        return wanted
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        settings, script, ivy = (Path(scratch) / name for name in ("ivysettings.xml", "nothing.py", "ivy"))
        settings.write_text(_IVY_SETTINGS)
        script.write_text("")
        home = Path(pyspark.__file__).parent
        command = [
            str(home / "bin" / "spark-submit"),
            *("--master", "local[1]"),
            *("--packages", ",".join(jar.coordinate for jar in ALL)),
            *("--conf", f"spark.jars.ivySettings={settings}"),
            *("--conf", f"spark.jars.ivy={ivy}"),
            str(script),
        ]
        # Both names must be given: the script of a venv that is not activated finds neither.
        environment = {**os.environ, "SPARK_HOME": str(home), "PYSPARK_PYTHON": sys.executable}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
        fetched = {jar: ivy / "jars" / f"{jar.group}_{jar.file_name}" for jar in ALL}
        if done.returncode or not all(path.exists() for path in fetched.values()):
            raise RetryableError(
                "the jars could not be resolved from Maven Central: " + done.stderr[-2000:],
                where=", ".join(jar.coordinate for jar in ALL),
                hint="check the network, or copy the jars into the folder by hand",
            )
        for jar, path in fetched.items():
            # Rename last: a killed copy must not look like a finished one.
            part = folder / f".{jar.file_name}.part"
            shutil.copyfile(path, part)
            part.rename(folder / jar.file_name)
    return wanted


def main(arguments: list[str]) -> int:
    if not arguments:
        print(",".join(jar.coordinate for jar in ALL))
        return 0
    for path in fetch(Path(arguments[0])):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
