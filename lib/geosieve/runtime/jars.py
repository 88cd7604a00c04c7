"""Dependencies on the JVM side: pinned Maven coordinates, declared once, and the check that the jars are present.

`python -m geosieve.runtime.jars DIR` puts the jars into a folder: a venv's `pyspark/jars`, or one that is copied into a
cluster's image; with `aws` after DIR, also the one for catalogues in AWS. `python -m geosieve.runtime.jars` prints the
coordinates for `spark-submit --packages`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyspark

from geosieve.runtime.errors import EXIT_BAD_CONFIG, ConfigError, IntegrityError, RetryableError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@dataclass(frozen=True)
class Jar:
    """A pinned jar: its Maven coordinate, a class in it that shows its presence, and its SHA-256 in hex."""

    group: str
    artifact: str
    version: str
    probe: str
    sha256: str

    @property
    def coordinate(self) -> str:
        """The Maven coordinate, `group:artifact:version`."""
        return f"{self.group}:{self.artifact}:{self.version}"

    @property
    def file_name(self) -> str:
        """The name of the file on Maven Central."""
        return f"{self.artifact}-{self.version}.jar"


SPATIAL = (
    Jar(
        "org.apache.sedona",
        "sedona-spark-shaded-3.5_2.12",
        "1.8.1",  # the newest with all jars published for the Python package of the same version
        "org.apache.sedona.core.serde.SedonaKryoRegistrator",
        "a83cf61d778b3a6908e2948d2aec216caabd02c474a4d9653b049903fec965d7",
    ),
    Jar(
        "org.datasyslab",
        "geotools-wrapper",
        "1.8.1-33.1",  # the version for Sedona 1.8.1
        "org.geotools.referencing.CRS",
        "d6b4cef01a171fd8278c224e5f0110fdcbb344b2db04dbebba2e5f4b0ed7bad5",
    ),
)
S3 = (
    Jar(
        "org.apache.hadoop",
        "hadoop-aws",
        "3.3.4",  # must be the version of Hadoop that Spark 3.5 ships
        "org.apache.hadoop.fs.s3a.S3AFileSystem",
        "53f9ae03c681a30a50aa17524bd9790ab596b28481858e54efd989a826ed3a4a",
    ),
    Jar(
        "com.amazonaws",
        "aws-java-sdk-bundle",
        "1.12.262",  # the version that hadoop-aws was built with
        "com.amazonaws.services.s3.AmazonS3",
        "873fe7cf495126619997bec21c44de5d992544aea7e632fdc77adb1a0915bae5",
    ),
    Jar(  # connects Spark's Parquet writer to S3A's magic committer
        "org.apache.spark",
        "spark-hadoop-cloud_2.12",
        "3.5.7",  # the newest that is published
        "org.apache.spark.internal.io.cloud.PathOutputCommitProtocol",
        "2b70d491d61c736cd9721e61936e802cb9150048d50eeca3ee1d14fc21011027",
    ),
)
ICEBERG = (  # its catalogue in SQLite is served by the driver that is in Sedona's jar, 3.41
    Jar(
        "org.apache.iceberg",
        "iceberg-spark-runtime-3.5_2.12",
        "1.10.1",  # 1.9.2 and 1.10.0 lose the column bounds of registered files (apache/iceberg 14617)
        "org.apache.iceberg.spark.SparkCatalog",
        "39ea09e6c03550a300b9d9ab498949836d2d434e441da4c12a943a086e396940",
    ),
)
ICEBERG_AWS = (  # 63 MB that only catalogues in AWS need: fetched on demand, not among ALL
    Jar(
        "org.apache.iceberg",
        "iceberg-aws-bundle",
        "1.10.1",  # that of Iceberg
        "software.amazon.awssdk.services.glue.GlueClient",
        "86bf20892ea5b4c17688f19b075399885f6aa5303f6b2dc9f491e76ceef9633b",
    ),
)
ALL = SPATIAL + S3 + ICEBERG

# usepoms=false: only the jars above are fetched, no transitive ones. Not every repository serves Sedona's parent POM.
_IVY_SETTINGS = """<ivysettings><settings defaultResolver="central"/><resolvers>
<ibiblio name="central" m2compatible="true" usepoms="false"/></resolvers></ivysettings>
"""


def check(spark: SparkSession, jars: tuple[Jar, ...] = SPATIAL) -> None:
    """Raise ConfigError if a jar is missing from the session's JVM or has another version.

    Without this check, the session would start and the first job would fail with a Kryo error that names no jar.
    """
    from py4j.java_gateway import JavaClass

    jvm: Any = spark._jvm
    for jar in jars:
        node = jvm
        for part in jar.probe.split("."):
            node = getattr(node, part)
        if not isinstance(node, JavaClass):
            raise _missing(jar, f"jar {jar.coordinate} is not on Spark's class path")
        loaded = jvm.java.lang.Class.forName(
            jar.probe, False, jvm.java.lang.Thread.currentThread().getContextClassLoader()
        )
        found = str(loaded.getProtectionDomain().getCodeSource().getLocation().getPath()).rsplit("/", 1)[-1]
        if not found.endswith(jar.file_name):  # Ivy prefixes the file name with the group
            raise _missing(jar, f"{found} is on Spark's class path where {jar.coordinate} is needed")


def _missing(jar: Jar, what: str) -> ConfigError:
    if jar in ICEBERG_AWS:
        hint = f"run 'python -m geosieve.runtime.jars $SPARK_HOME/jars aws', or add --packages {jar.coordinate}"
        return ConfigError(what, where="Spark session", hint=hint)
    return ConfigError(
        what,
        where="Spark session",
        hint="run 'make jars DIR=$SPARK_HOME/jars', or add "
        f"--packages {','.join(jar.coordinate for jar in ALL)} "
        "--conf spark.jars.ivySettings=<settings with usepoms=false, see docs/cluster.md>",
    )


def fetch(folder: Path, jars: tuple[Jar, ...] = ALL) -> list[Path]:
    """Fetch those jars that are not in `folder` yet, with Spark's own Ivy; return the paths of all.

    Raises RetryableError with the end of Ivy's output if a jar cannot be fetched, and IntegrityError if a jar differs
    from the pinned checksum, whether it was fetched or already there.
    """
    wanted = [folder / jar.file_name for jar in jars]
    missing = []
    for jar, path in zip(jars, wanted, strict=True):
        if path.exists():
            _verify(jar, path)
        else:
            missing.append(jar)
    if not missing:
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
            *("--packages", ",".join(jar.coordinate for jar in missing)),
            *("--conf", f"spark.jars.ivySettings={settings}"),
            *("--conf", f"spark.jars.ivy={ivy}"),
            str(script),
        ]
        # If the venv is not activated, its spark-submit finds neither Spark nor Python without these variables.
        environment = {**os.environ, "SPARK_HOME": str(home), "PYSPARK_PYTHON": sys.executable}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
        fetched = {jar: ivy / "jars" / f"{jar.group}_{jar.file_name}" for jar in missing}
        if done.returncode or not all(path.exists() for path in fetched.values()):
            raise RetryableError(
                "the jars could not be resolved from Maven Central: " + done.stderr[-2000:],
                where=", ".join(jar.coordinate for jar in missing),
                hint="check the network, or copy the jars into the folder by hand",
            )
        for jar, path in fetched.items():
            _verify(jar, path)
            # Rename after copying: an interrupted copy must not look complete.
            part = folder / f".{jar.file_name}.part"
            shutil.copyfile(path, part)
            part.rename(folder / jar.file_name)
    return wanted


def _verify(jar: Jar, path: Path) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != jar.sha256:
        raise IntegrityError(
            f"{jar.coordinate} has SHA-256 {found}, not {jar.sha256}",
            where=str(path),
            hint="do not use it: delete it, find out where it came from, and run `make` again",
        )


def main(arguments: list[str]) -> int:
    """Print the coordinates or, if a folder is given, fetch the jars into it and print their paths."""
    if not arguments:
        print(",".join(jar.coordinate for jar in ALL))
        return 0
    folder, *more = arguments
    if more not in ([], ["aws"]):
        print("usage: python -m geosieve.runtime.jars [DIR [aws]]", file=sys.stderr)
        return EXIT_BAD_CONFIG
    for path in fetch(Path(folder), ALL + ICEBERG_AWS if more else ALL):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
