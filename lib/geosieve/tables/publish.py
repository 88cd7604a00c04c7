"""Writing tables so that readers see whole runs or nothing.

A run writes one leaf folder `…/run_id=X` a table. `_SUCCESS`, written last by us and not by Spark's committer,
commits a leaf: it lists the files and rows that make it up. The job's main table is committed last, so its `_SUCCESS`
commits the run. Two attempts at one run id are fenced by `_claim`: the later one takes over, the earlier one finds
that out before it commits. Whatever the moment at which a driver dies, the next attempt starts the leaf anew.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from geosieve.runtime import jars
from geosieve.runtime.errors import ConfigError, IntegrityError, RetryableError
from geosieve.runtime.files import FileInfo, Files, literal
from geosieve.tables.schema import Table

SUCCESS, CLAIM, CONFIG, REPORT = "_SUCCESS", "_claim", "_config.json", "_report.json"

_MAGIC = {
    "spark.sql.sources.commitProtocolClass": "org.apache.spark.internal.io.cloud.PathOutputCommitProtocol",
    "spark.sql.parquet.output.committer.class": ("org.apache.spark.internal.io.cloud.BindingParquetOutputCommitter"),
}


@dataclass(frozen=True)
class Leaf:
    """One run's folder of one table, with the values of the partition columns before `run_id`."""

    table: Table
    values: Mapping[str, str] = field(default_factory=dict)

    def uri(self, root: str, run_id: str) -> str:
        folders = [f"{column.name}={self.values[column.name]}" for column in self.table.partitions]
        return "/".join([root.rstrip("/"), self.table.name, *folders, f"run_id={run_id}"])


def read_manifest(files: Files, leaf_uri: str) -> dict[str, Any] | None:
    """The content of a leaf's `_SUCCESS`, or None where the leaf is not committed."""
    marker = f"{leaf_uri}/{SUCCESS}"
    if not files.exists(marker):
        return None
    try:
        content = json.loads(files.read_text(marker))
    except ValueError:
        return None  # not written by us: some engine's own marker
    return content if isinstance(content, dict) and "files" in content else None


class Publication:
    """The writing of one run: `begin`, then `write` each table, then `commit`."""

    def __init__(
        self,
        spark: SparkSession,
        root: str,
        run_id: str,
        config_json: str,
        config_digest: str,
        leaves: list[Leaf],
    ) -> None:
        """`leaves`: every table that the run writes; the main one last."""
        self._spark, self._files = spark, Files(spark)
        self._run_id, self._config_json, self._config_digest = run_id, config_json, config_digest
        self._uris = {leaf.table.name: leaf.uri(root, run_id) for leaf in leaves}
        self._tables = {leaf.table.name: leaf.table for leaf in leaves}
        self._main = leaves[-1].table.name
        self._attempt = uuid.uuid4().hex
        self._rows: dict[str, int] = {}
        self._data: dict[str, list[FileInfo]] = {}

    @property
    def uris(self) -> list[str]:
        """The leaves of this run."""
        return list(self._uris.values())

    def begin(self) -> bool:
        """Take the run id. False if the run is committed already: there is nothing to do.

        ConfigError if it was committed with another configuration, or if another run has committed one of its leaves.
        """
        main = self._uris[self._main]
        manifests = {uri: read_manifest(self._files, uri) for uri in self._uris.values()}
        for uri, manifest in manifests.items():
            if manifest is not None and manifest["config_sha256"] != self._config_digest:
                raise ConfigError(
                    f"run {self._run_id} was committed with another configuration",
                    where=uri,
                    hint="choose another --run-id",
                )
        if manifests[main] is not None:
            return False
        if main.startswith("s3a:"):
            jars.check(self._spark, jars.S3)
        self._take_claim()
        for uri in self._uris.values():
            self._clear(uri)
        return True

    def write(self, table: Table, frame: DataFrame) -> int:
        """Write one table's leaf (not committed yet) and return its rows, counted from the written files.

        RetryableError if another attempt has taken the run id meanwhile.
        """
        self._check_claim()  # an attempt that lost it must not write among the winner's files
        try:
            self._save(table, frame)
        except Exception:
            self._check_claim()  # the winner clears the leaf: what failed under that is a lost race
            raise
        try:
            self._check_claim()
        except RetryableError:
            self._remove_strays(table.name)
            raise
        self._data[table.name] = self._list_data(table.name)
        # part-00000-<id of the write>-c000…: a second id is an attempt that wrote at the same time.
        if len({f.name.split("-", 2)[2][:36] for f in self._data[table.name]}) > 1:
            raise RetryableError(
                "another attempt of this run is writing too",
                where=self._uris[table.name],
                hint="nothing was committed; run again when no other attempt runs",
            )
        self._rows[table.name] = self.written(table).count()
        return self._rows[table.name]

    def _save(self, table: Table, frame: DataFrame) -> None:
        uri = self._uris[table.name]
        writer = (
            table.conform(frame)
            .write.mode("append")  # the folder exists: it holds the claim
            .option("compression", "zstd")
            .option("mapreduce.fileoutputcommitter.marksuccessfuljobs", "false")
        )
        if table.geometry is not None:
            writer = (
                writer.format("geoparquet")
                .option("geoparquet.version", "1.1.0")
                .option("geoparquet.crs", "")  # absent means OGC:CRS84, which is what we store
                .option(f"geoparquet.covering.{table.geometry.name}", "bbox")
            )
        else:
            writer = writer.format("parquet")
        if uri.startswith("s3a:"):
            with _settings(self._spark, _MAGIC):
                writer.option("fs.s3a.committer.name", "magic").save(uri)
        else:
            writer.save(uri)

    def written(self, table: Table) -> DataFrame:
        """What this run wrote to a table, before the commit. A geometry is WKB."""
        return self._spark.read.schema(self._tables[table.name].spark_schema()).parquet(literal(self._uris[table.name]))

    def commit(self, rows_in: int, report_json: str) -> None:
        """Check rows in = rows out + rejects and that the claim is still ours, then mark every leaf, main last.

        IntegrityError or RetryableError leave everything uncommitted.
        """
        rows_out, rejected = self._rows[self._main], self._rows.get("rejects", 0)
        if rows_in != rows_out + rejected:
            raise IntegrityError(
                f"{rows_in} rows came in but {rows_out} went out and {rejected} were rejected",
                where=self._uris[self._main],
                hint="nothing was committed; please report this",
            )
        main = self._uris[self._main]
        self._files.write_text(f"{main}/{CONFIG}", self._config_json)
        self._files.write_text(f"{main}/{REPORT}", report_json)
        self._check_claim()
        for name, uri in self._uris.items():
            if self._list_data(name) != self._data[name]:
                raise RetryableError(
                    "files came or went since they were written: another attempt of this run is still writing",
                    where=uri,
                    hint="nothing was committed; run again when no other attempt runs",
                )
        for name, uri in self._uris.items():
            self._mark(name, uri)

    def _remove_strays(self, name: str) -> None:
        """Where the winner has committed already, remove what we wrote beside it: SQL engines read whole folders."""
        manifest = read_manifest(self._files, self._uris[name])
        if manifest is not None:
            listed = {entry["name"] for entry in manifest["files"]}
            for stray in self._list_data(name):
                if stray.name not in listed:
                    self._files.delete(stray.uri)

    def _list_data(self, name: str) -> list[FileInfo]:
        return [f for f in self._files.list(self._uris[name]) if not f.name.startswith(("_", "."))]

    def _mark(self, name: str, uri: str) -> None:
        manifest = {
            "table": name,
            "run_id": self._run_id,
            "attempt": self._attempt,
            "config_sha256": self._config_digest,
            "committed_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "rows": self._rows[name],
            "files": [{"name": f.name, "bytes": f.size} for f in self._data[name]],
        }
        self._files.write_text(f"{uri}/{SUCCESS}", json.dumps(manifest, indent=1))

    def _take_claim(self) -> None:
        claim = json.dumps({"attempt": self._attempt, "at": datetime.now(UTC).isoformat(timespec="seconds")})
        self._files.write_text(f"{self._uris[self._main]}/{CLAIM}", claim)

    def _check_claim(self) -> None:
        claim = f"{self._uris[self._main]}/{CLAIM}"
        holder = json.loads(self._files.read_text(claim))["attempt"] if self._files.exists(claim) else None
        if holder != self._attempt:
            raise RetryableError(
                f"another attempt has taken over run {self._run_id}",
                where=self._uris[self._main],
                hint="let it finish; this one committed nothing",
            )

    def _clear(self, uri: str) -> None:
        """Remove what an earlier, uncommitted attempt left; the marker first, so that nobody reads a part."""
        self._files.delete(f"{uri}/{SUCCESS}")
        for entry in self._files.list(uri):
            if entry.name != CLAIM:
                self._files.delete(entry.uri)


@contextmanager
def _settings(spark: SparkSession, settings: Mapping[str, str]) -> Iterator[None]:
    before = {key: spark.conf.get(key, None) for key in settings}
    for key, value in settings.items():
        spark.conf.set(key, value)
    try:
        yield
    finally:
        for key, old in before.items():
            if old is None:
                spark.conf.unset(key)
            else:
                spark.conf.set(key, old)
