"""A real Trino on loopback, built from Maven Central in build/trino; see tests/sql/trino/pom.xml."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import required
import trino

SOURCE = Path(__file__).parent / "trino"
BUILT = Path(__file__).parents[2] / "build" / "trino"
VERSION, JAVA = "476", 25
CATALOG = "geosieve_sql"
_START_S, _BUILD_S = 180, 900
_FLAGS = (
    *("-Xmx2g", "-XX:+UseG1GC", "-XX:TieredStopAtLevel=1", "-XX:+ExitOnOutOfMemoryError"),
    *("-Djdk.attach.allowAttachSelf=true", "--add-opens=java.base/java.nio=ALL-UNNAMED"),
    *("--enable-native-access=ALL-UNNAMED", "--add-modules=jdk.incubator.vector", "-Duser.timezone=UTC"),
)


def find_java() -> Path | None:
    """The home of a JDK of the version that this Trino needs."""
    homes = [Path(os.environ[name]) for name in ("JAVA_25_HOME", "JAVA_HOME") if name in os.environ]
    for home in [*homes, *sorted(Path("/usr/lib/jvm").glob("*"))]:
        release = home / "release"
        if (home / "bin" / "java").exists() and release.exists():
            told = re.search(r'JAVA_VERSION="(\d+)', release.read_text(encoding="utf-8"))
            if told and int(told[1]) == JAVA:
                return home
    return None


class Trino:
    """A running server with catalogues `hive`, of files and a metastore in a folder, `iceberg`, of ours, and `rest`."""

    def __init__(self, port: int) -> None:
        self.port = port

    def sql(self, text: str, catalog: str = "hive", schema: str | None = None) -> list[tuple[Any, ...]]:
        """The rows of a statement."""
        return self.run(text, catalog, schema)[0]

    def run(self, text: str, catalog: str = "hive", schema: str | None = None) -> tuple[list[tuple[Any, ...]], Any]:
        """The rows of a statement, and its statistics."""
        connection = trino.dbapi.connect(
            host="127.0.0.1", port=self.port, user="test", catalog=catalog, schema=schema, timezone="UTC"
        )
        cursor = connection.cursor()
        cursor.execute(text)
        rows = [tuple(row) for row in cursor.fetchall()]
        return rows, cursor.stats


def build() -> Path:
    """The home of the JDK; the server's jars lie in BUILT then. Skips or fails where it cannot be built."""
    home, maven = find_java(), shutil.which("mvn")
    if home is None:
        required.skip_or_fail("trino", f"Trino {VERSION} needs JDK {JAVA}: in /usr/lib/jvm, JAVA_HOME or JAVA_25_HOME")
    if maven is None:
        required.skip_or_fail("trino", "Trino is built by Maven: mvn is missing")
    done = BUILT / f"done-{VERSION}"
    if not done.exists():
        command = [maven, "-B", "-q", "-f", str(SOURCE / "pom.xml"), "process-resources"]
        environment = {**os.environ, "JAVA_HOME": str(home)}
        built = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_BUILD_S)
        if built.returncode:
            required.skip_or_fail("trino", f"Maven cannot build Trino: {(built.stdout + built.stderr)[-1000:]}")
        done.touch()
    return home


@contextmanager
def started(folder: Path, iceberg: Path, rest: Iterable[str] = ()) -> Iterator[Trino]:
    """A server whose files lie in `folder`, with the catalogue of `register_tables` in the folder `iceberg`.

    `rest`: further lines of properties of a REST catalogue.
    """
    home = build()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    catalogs = folder / "catalog"
    catalogs.mkdir(parents=True)
    files = ["fs.native-local.enabled=true", "local.location=/"]
    database = f"jdbc:sqlite:{iceberg}/catalog.db?journal_mode=WAL&busy_timeout=20000"
    settings = {
        "config.properties": [
            *("coordinator=true", "node-scheduler.include-coordinator=true", f"http-server.http.port={port}"),
            *(f"discovery.uri=http://127.0.0.1:{port}", "node.environment=test", "node.bind-ip=127.0.0.1"),
            *("node.internal-address=127.0.0.1", f"plugin.dir={BUILT}/plugin", f"catalog.config-dir={catalogs}"),
            "query.max-memory-per-node=512MB",
        ],
        "catalog/hive.properties": [
            *("connector.name=hive", *files, "hive.metastore=file", "hive.security=allow-all"),
            *(f"hive.metastore.catalog.dir=local://{folder}/metastore", "hive.parquet.time-zone=UTC"),
            *("hive.timestamp-precision=MICROSECONDS", "hive.non-managed-table-writes-enabled=true"),
            "hive.allow-register-partition-procedure=true",
        ],
        "catalog/iceberg.properties": [
            *("connector.name=iceberg", *files, "iceberg.catalog.type=jdbc"),
            *(f"iceberg.jdbc-catalog.catalog-name={CATALOG}", f"iceberg.jdbc-catalog.connection-url={database}"),
            "iceberg.jdbc-catalog.driver-class=org.sqlite.JDBC",
            f"iceberg.jdbc-catalog.default-warehouse-dir=file://{iceberg}/iceberg",
        ],
        "catalog/rest.properties": ["connector.name=iceberg", *files, "iceberg.catalog.type=rest", *rest],
    }
    for name, lines in settings.items():
        (folder / name).write_text("\n".join(lines) + "\n")
    source = str(SOURCE / "StartTrino.java")  # Java compiles it
    command = [str(home / "bin" / "java"), *_FLAGS, f"-Dconfig={folder}/config.properties", "-cp", f"{BUILT}/lib/*"]
    with open(folder / "server.log", "w") as log:
        process = subprocess.Popen([*command, source, VERSION], stdout=log, stderr=subprocess.STDOUT, cwd=folder)
    try:
        server = Trino(port)
        _wait(server, process, folder / "server.log")
        yield server
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(server: Trino, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until it answers from files and from `iceberg`: for some seconds after its start it has no nodes."""
    end = time.monotonic() + _START_S
    while True:
        try:
            server.sql("CREATE SCHEMA IF NOT EXISTS hive.ready")
            server.sql("CREATE TABLE IF NOT EXISTS hive.ready.one AS SELECT 1 AS n")
            assert server.sql("SELECT n FROM hive.ready.one") == [(1,)]
            server.sql("SHOW SCHEMAS FROM iceberg")
            return
        except (trino.exceptions.Error, OSError, AssertionError):
            if process.poll() is not None or time.monotonic() > end:
                raise AssertionError(f"Trino does not answer: {log.read_text()[-3000:]}") from None
            time.sleep(1)
