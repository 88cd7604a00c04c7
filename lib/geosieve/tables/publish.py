"""Writing tables so that readers see either a whole run or nothing.

A run writes one leaf folder `…/run_id=X` per table. A leaf is committed when it holds `_SUCCESS`: the manifest, which
lists the files and the number of rows of the leaf. This module writes `_SUCCESS` itself, after all files; Spark's
committer does not write it. The main table of the job gets its `_SUCCESS` last; for readers, that one commits the run.

Several attempts (driver processes) may work on one run id; module `attempts` decides which one wins. An attempt commits
by writing one file that contains the manifests of all tables, and then copies each manifest to `_SUCCESS` of its leaf.
An attempt deletes files of earlier attempts only when those can no longer commit. If the driver dies, the next attempt
either finishes the commit or starts again and keeps the committed shards.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from geosieve.runtime import jars
from geosieve.runtime.errors import ConfigError, InputError, IntegrityError, RetryableError
from geosieve.runtime.files import FileInfo, Files
from geosieve.runtime.logs import logger
from geosieve.runtime.store import StoreFiles
from geosieve.tables import attempts
from geosieve.tables.attempts import Attempts
from geosieve.tables.parquet import read_files
from geosieve.tables.schema import Table

SUCCESS, CONFIG, REPORT, SHARDS = "_SUCCESS", "_config.json", "_report.json", "_shards"
_STAGING = "_staging-"
_MAGIC_FOLDER = "__magic"
_TRIES = 3

_MAGIC = {
    "spark.sql.sources.commitProtocolClass": "org.apache.spark.internal.io.cloud.PathOutputCommitProtocol",
    "spark.sql.parquet.output.committer.class": ("org.apache.spark.internal.io.cloud.BindingParquetOutputCommitter"),
}

Listing = Mapping[str, int]
"""Maps file names to sizes in bytes."""


@dataclass(frozen=True)
class Leaf:
    """The folder of one table in one run. `values` has the partition columns of the table except `run_id`."""

    table: Table
    values: Mapping[str, str] = field(default_factory=dict)

    def uri(self, root: str, run_id: str) -> str:
        """The folder below `root`: `root/table/column=value/…/run_id=X`. KeyError if a partition value is missing."""
        folders = [f"{column.name}={self.values[column.name]}" for column in self.table.partitions]
        return "/".join([root.rstrip("/"), self.table.name, *folders, f"run_id={run_id}"])


def read_manifest(files: Files | StoreFiles, leaf_uri: str) -> dict[str, Any] | None:
    """The manifest in a leaf's `_SUCCESS`, or None if the leaf is not committed."""
    marker = f"{leaf_uri}/{SUCCESS}"
    if not files.exists(marker):
        return None
    try:
        content = json.loads(files.read_text(marker))
    except ValueError:
        return None  # the marker of another engine
    return content if isinstance(content, dict) and "files" in content else None


class Shard:
    """A part of a run. Its rows of all tables are written and committed together."""

    def __init__(self, publication: Publication, index: int) -> None:
        self._publication, self.index = publication, index
        self._written: dict[str, _Part] = {}

    def write(self, table: Table, frame: DataFrame) -> int:
        """Write the rows of this shard to a table, without committing them. Returns the row count of the files.

        RetryableError if another attempt has taken the run id or the written files are gone; InputError if the columns
        of `frame` are not those of `table`.
        """
        self._written[table.name] = self._publication._write(table, frame)
        return self._written[table.name].rows

    def commit(self, rows_in: int) -> None:
        """Write the manifest of the shard, so that a later attempt keeps its files. Call it once, after `write`.

        IntegrityError unless `rows_in` equals the rows of the main table plus the rejects, RetryableError if another
        attempt has taken the run id. After either of them the shard is not committed.
        """
        self._publication._commit_shard(self.index, rows_in, self._written)


@dataclass(frozen=True)
class _Part:
    """The rows and files of one table in one shard."""

    rows: int
    files: Listing

    def to_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "files": _entries(self.files)}

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> _Part:
        return cls(int(content["rows"]), _listing(content["files"]))


@dataclass(frozen=True)
class _Committed:
    """A committed shard. `plan` is the digest of what it contains."""

    rows_in: int
    plan: str
    parts: Mapping[str, _Part]


class Publication:
    """Writes and commits the tables of one run.

    Call `begin`, then `write` for each table, then `commit`. To write in parts that are kept when the driver dies, call
    `write` and `commit` of each shard that `shards` yields, and then `commit` of the publication.
    """

    def __init__(
        self,
        spark: SparkSession,
        root: str,
        run_id: str,
        config_json: str,
        config_digest: str,
        leaves: list[Leaf],
        warn: Callable[[str], None] | None = None,
    ) -> None:
        """Nothing is read or written yet.

        `leaves` lists every table that the run writes, the main table last. `config_json` is published as
        `_config.json`; `config_digest` identifies the configuration. `warn` receives warnings; by default the log does.
        """
        self._spark, self._files, self._warn = spark, Files(spark), warn or logger().warning
        self._run_id, self._config_json, self._config_digest = run_id, config_json, config_digest
        self._uris = {leaf.table.name: leaf.uri(root, run_id) for leaf in leaves}
        self._tables = {leaf.table.name: leaf.table for leaf in leaves}
        self._main = leaves[-1].table.name
        self._attempt = uuid.uuid4().hex
        self._attempts = Attempts(self._files, self._uris[self._main], self._attempt)
        self._own: dict[str, set[str]] = {name: set() for name in self._uris}
        self._shards: dict[int, _Committed] = {}
        self._plan: list[str] | None = None
        self._whole = Shard(self, 0)
        self.finished = False
        """True if `begin` completed the commit of an earlier attempt: its tables were not readable before."""
        self._attached: dict[str, list[dict[str, Any]]] = {name: [] for name in self._uris}
        self._replaced: Mapping[str, Mapping[str, str]] | None = None
        self._switch = leaves[-1].uri("", run_id).lstrip("/")

    @property
    def uris(self) -> list[str]:
        """The leaf folders of this run, the main table last."""
        return list(self._uris.values())

    def begin(self) -> bool:
        """Claim the run id and remove what earlier attempts left, except committed shards.

        Returns False if the run is already committed, so that there is nothing to do. A commit whose files are missing
        does not count: the run starts again, with a warning.

        ConfigError if one of the leaves or shards was committed with another configuration, or if the JAR files for S3
        are missing; RetryableError if another attempt takes the run id meanwhile.
        """
        main = self._uris[self._main]
        committed, lost = self._look()
        if committed:
            return False
        if lost:
            self._warn(f"{lost} of the committed run {self._run_id} at {main}; it starts anew")
        if main.startswith("s3a:"):
            jars.check(self._spark, jars.S3)
        self._attempts.take()
        commit = self._attempts.close_earlier()
        if commit is not None:
            same = commit["manifests"].keys() == self._uris.keys()
            if same and not self._missing(commit["manifests"], staged=commit["attempt"]):
                self._settle(commit)  # that attempt died before this step, or is about to do the same
                for name, manifest in commit["manifests"].items():
                    self._refuse_other_configuration(manifest, self._uris[name])
                self.finished = True
                return False
            self._attempts.withdraw_earlier(commit)
        self._clear()
        return True

    def committed(self) -> bool:
        """Whether the run is committed with all its files. Writes nothing.

        ConfigError if one of the leaves was committed with another configuration.
        """
        return self._look()[0]

    def _look(self) -> tuple[bool, str]:
        """Whether the run is committed with all its files, and a text on missing files, if any, of a marked run."""
        manifests = {name: read_manifest(self._files, uri) for name, uri in self._uris.items()}
        for name, manifest in manifests.items():
            self._refuse_other_configuration(manifest, self._uris[name])
        if manifests[self._main] is None:
            return False, ""
        lost = self._missing({name: manifest for name, manifest in manifests.items() if manifest is not None})
        return not lost, lost

    def write(self, table: Table, frame: DataFrame) -> int:
        """Write the rows of one table, without committing them. Returns the row count of the written files.

        RetryableError if another attempt has taken the run id or the written files are gone; InputError if the columns
        of `frame` are not those of `table`.
        """
        return self._whole.write(table, frame)

    def shards(self, plan: Sequence[str]) -> Iterator[Shard]:
        """The shards that no attempt has committed yet, in order. Write and commit each one before taking the next.

        `plan` has one text per shard of the run. It describes what the shard contains and must be the same in every
        attempt, e.g. a digest of the shard's inputs. InputError if a shard was committed with another plan.
        """
        self._plan = [hashlib.sha256(f"{len(plan)} {k} {what}".encode()).hexdigest() for k, what in enumerate(plan)]
        for k, shard in sorted(self._shards.items()):
            if k >= len(plan) or shard.plan != self._plan[k]:
                raise InputError(
                    f"shard {k} of run {self._run_id} was committed with other inputs or as one of another number",
                    where=self._uris[self._main],
                    hint="the inputs have changed since the run began; choose another --run-id",
                )
        for k in range(len(plan)):
            if k not in self._shards:
                yield Shard(self, k)

    @property
    def rows_in(self) -> int:
        """The number of input rows of all committed shards."""
        return sum(shard.rows_in for shard in self._shards.values())

    def attach(self, table: Table, name: str, content: str | Path) -> None:
        """Publish a file next to a table's Parquet files. `content` is its text or the path of a local file.

        The file appears in the leaf under `name` when the run is committed. The manifest lists its size in bytes and
        its SHA-256. A second call with the same name replaces the file.

        ValueError if the name does not begin with `_` (engines read all other files as rows), contains `/`, or is
        reserved.
        """
        if not name.startswith("_") or "/" in name or name in (SUCCESS, SHARDS, attempts.FOLDER):
            raise ValueError(f"{name!r}: the name of a file beside a table begins with `_` and has no `/`")
        staged = f"{self._staging(table.name)}/{name}"
        if isinstance(content, str):
            size, digest = len(content.encode()), hashlib.sha256(content.encode()).hexdigest()
            self._files.write_text(staged, content)
        else:
            with content.open("rb") as file:
                size, digest = content.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()
            self._files.upload(str(content), staged)
        entry = {"name": name, "bytes": size, "sha256": digest}
        others = [other for other in self._attached[table.name] if other["name"] != name]
        self._attached[table.name] = [*others, entry]

    def replace(self, runs: Mapping[str, Mapping[str, str]]) -> None:
        """Say which committed runs this run takes the place of; they do not count from its commit on.

        `runs` has, by the name of each table of this run, the attempts of the replaced runs by their run ids; they have
        the partition values of the table's leaf. An attempt is named because a run id may be written anew later. All
        tables switch at the same moment: when the main table gets its `_SUCCESS`.
        """
        self._replaced = runs

    def written(self, table: Table) -> DataFrame:
        """The rows that this run has written to a table; may be called before the commit. A geometry is WKB."""
        name = table.name
        parts = [shard.parts[name] for shard in self._shards.values() if name in shard.parts]
        parts += [self._whole._written[name]] if name in self._whole._written else []
        return self._read(name, [file for part in parts for file in part.files])

    def commit(self, rows_in: int, report_json: str) -> None:
        """Commit the run, then write `_SUCCESS` to every leaf, the main table last.

        IntegrityError unless `rows_in` equals the rows of the main table plus the rejects and all shards are committed;
        RetryableError if another attempt has taken the run id or written files are gone. After either of them the run
        is not committed.
        """
        if self._plan is None:
            self._shards = {0: _Committed(rows_in, "", self._whole._written)}
        elif len(self._shards) < len(self._plan):
            missing = len(self._plan) - len(self._shards)
            raise IntegrityError(f"{missing} shards of {len(self._plan)} are not committed", where=self.uris[-1])
        parts = {name: self._parts(name) for name in self._uris}
        rows = {name: sum(part.rows for part in of) for name, of in parts.items()}
        self._balance(rows_in, rows[self._main], rows.get("rejects", 0))
        self.attach(self._tables[self._main], CONFIG, self._config_json)
        self.attach(self._tables[self._main], REPORT, report_json)
        manifests = {name: self._manifest(name, parts[name]) for name in self._uris}
        self.check()
        lost = self._missing(manifests, staged=self._attempt)
        if lost:
            raise RetryableError(f"{lost}, which this run wrote", where=self.uris[-1], hint="run again")
        try:
            commit = self._attempts.commit(manifests)
        except RetryableError:
            self._discard()
            raise
        self._settle(commit)
        if not self._attempts.committed():
            self._take_back()

    def check(self) -> None:
        """RetryableError if another attempt has taken the run id. Files that are not committed are deleted then.

        After a failure, call this first: the other attempt deletes files of this one, which causes all kinds of errors.
        """
        try:
            self._attempts.check()
        except RetryableError:
            self._discard()
            raise

    def _write(self, table: Table, frame: DataFrame) -> _Part:
        self.check()
        try:
            names = self._save_alone(table, frame)
            self.check()
            rows = self._count(table.name, names)
        except Exception:
            self.check()  # the winning attempt deletes our files, which may be the cause of the failure
            raise
        sizes = {entry.name: entry.size for entry in self._files.list(self._uris[table.name])}
        if not names <= sizes.keys():
            self.check()
            raise RetryableError(
                "files that were just written are gone", where=self._uris[table.name], hint="run again"
            )
        return _Part(rows, {name: sizes[name] for name in sorted(names)})

    def _save_alone(self, table: Table, frame: DataFrame) -> set[str]:
        """Write the rows into the leaf and return the names of the files.

        Other attempts may write to the same leaf at the same time; their files are not among the names.
        """
        name = table.name
        own, uri = self._own[name], self._uris[name]
        if not uri.startswith("s3a:"):
            folder = f"{self._staging(name)}/rows-{uuid.uuid4().hex}"
            self._save(table, frame, folder)
            self.check()
            names = {file.name for file in self._files.list(folder) if _is_data(file)}
            own |= names  # before they are moved, so that `_discard` finds them even after a failure
            for file in sorted(names):
                self._files.move(f"{folder}/{file}", f"{uri}/{file}")
            self._files.delete(folder)
            return names
        for _ in range(_TRIES):
            # The magic committer puts files into the folder above the first `__magic`, which is the leaf. It creates a
            # second `__magic` below our folder and cleans up only there, so attempts do not disturb each other.
            self._save(table, frame, f"{uri}/{_MAGIC_FOLDER}/{self._attempt}")
            known = {file for part in self._parts(name) for file in part.files} | own
            names = {file.name for file in self._files.list(uri) if _is_data(file)} - known
            # Names are part-00000-<id of the write>-c000…: with a second id, another attempt wrote at the same time.
            # Unless that attempt has taken over from us (`check`), it has lost: delete the files and write ours again.
            if len({file.split("-", 2)[2][:36] for file in names}) == 1:
                own |= names
                return names
            self.check()
            for file in names:
                self._files.delete(f"{uri}/{file}")
        raise RetryableError("another attempt of this run keeps writing", where=uri, hint="run again when it has ended")

    def _save(self, table: Table, frame: DataFrame, folder: str) -> None:
        writer = (
            table.conform(frame)
            .write.mode("append")
            .option("compression", "zstd")
            .option("mapreduce.fileoutputcommitter.marksuccessfuljobs", "false")
            # How much a page and a row group hold is looked at after their first row, not their hundredth: a hundred
            # pictures are 100 MB, in buffers that double. Rows of usual size are looked at as rarely as before.
            .option("parquet.page.size.row.check.min", 1)
            .option("parquet.block.size.row.check.min", 1)
        )
        for column in table.columns:
            if column.type == "binary":  # no picture occurs twice: to look for that, Parquet hashes every byte
                writer = writer.option(f"parquet.enable.dictionary#{column.name}", False)
        if table.row_group_bytes is not None:
            writer = writer.option("parquet.block.size", table.row_group_bytes)
        if table.geometry is not None:
            writer = (
                writer.format("geoparquet")
                .option("geoparquet.version", "1.1.0")
                .option("geoparquet.crs", "")  # a missing CRS means OGC:CRS84 (lon, lat), which is what we store
                .option(f"geoparquet.covering.{table.geometry.name}", "bbox")
            )
        else:
            writer = writer.format("parquet")
        if folder.startswith("s3a:"):
            with _settings(self._spark, _MAGIC):
                writer.option("fs.s3a.committer.name", "magic").save(folder)
        else:
            writer.save(folder)

    def _read(self, name: str, files: Sequence[str]) -> DataFrame:
        return read_files(self._spark, self._tables[name].spark_schema(), {self._uris[name]: files})

    def _count(self, name: str, files: set[str]) -> int:
        return self._read(name, sorted(files)).count()

    def _commit_shard(self, index: int, rows_in: int, written: Mapping[str, _Part]) -> None:
        assert self._plan is not None
        out, rejected = (written[name].rows if name in written else 0 for name in (self._main, "rejects"))
        self._balance(rows_in, out, rejected)
        shard = _Committed(rows_in, self._plan[index], dict(written))
        content = {
            "shard": index,
            "shards": len(self._plan),
            "plan": shard.plan,
            "attempt": self._attempt,
            "config_sha256": self._config_digest,
            "committed_at": _now(),
            "rows_in": rows_in,
            "tables": {name: part.to_dict() for name, part in shard.parts.items()},
        }
        self.check()
        uri = f"{self._uris[self._main]}/{SHARDS}/{index:06d}-{self._attempt}.json"
        self._files.write_text(uri, json.dumps(content))
        self._shards[index] = shard
        for name, part in written.items():
            self._own[name] -= part.files.keys()

    def _balance(self, rows_in: int, rows_out: int, rejected: int) -> None:
        if rows_in != rows_out + rejected:
            raise IntegrityError(
                f"{rows_in} rows came in but {rows_out} went out and {rejected} were rejected",
                where=self._uris[self._main],
                hint="nothing was committed; please report this",
            )

    def _parts(self, name: str) -> list[_Part]:
        return [shard.parts[name] for _, shard in sorted(self._shards.items()) if name in shard.parts]

    def _manifest(self, name: str, parts: list[_Part]) -> dict[str, Any]:
        manifest: dict[str, Any] = {
            "table": name,
            "run_id": self._run_id,
            "attempt": self._attempt,
            "config_sha256": self._config_digest,
            "committed_at": _now(),
            "rows": sum(part.rows for part in parts),
            "files": [entry for part in parts for entry in _entries(part.files)],
            "attachments": self._attached[name],
        }
        if self._replaced is not None:
            manifest["replaces"] = {"runs": dict(self._replaced[name]), "when": self._switch}
        if self._plan is not None:  # `files` is in the order of the shards, so the counts tell the files of each shard
            manifest["shards"] = [{"rows": part.rows, "files": len(part.files)} for part in parts]
        return manifest

    def _missing(self, manifests: Mapping[str, Mapping[str, Any]], staged: str | None = None) -> str:
        """A text that says how many files in the manifests are missing or have another size; empty if there are none.

        With the id of an attempt as `staged`, attachments may be in the staging folder of that attempt instead.
        """
        for name, manifest in manifests.items():
            # List staged files before the leaf: an attempt that makes the commit visible at the same time copies them
            # to the leaf before it deletes them here. So each file is in at least one of the lists.
            beside = {} if staged is None else self._staged(name, staged)
            found = {entry.name: entry.size for entry in self._files.list(self._uris[name])}
            wanted = [*_listing(manifest["files"]).items()]
            attached = [*_listing(manifest.get("attachments", [])).items()]
            lost = [file for file, size in wanted if found.get(file) != size]
            lost += [file for file, size in attached if found.get(file) != size and beside.get(file) != size]
            if lost:
                return f"{len(lost)} files (e.g. {lost[0]}) of {name} are missing or have other bytes"
        return ""

    def _staged(self, name: str, attempt: str) -> Listing:
        return {entry.name: entry.size for entry in self._files.list(self._staging(name, attempt))}

    def _staging(self, name: str, attempt: str | None = None) -> str:
        return f"{self._uris[name]}/{_STAGING}{attempt or self._attempt}"

    def _settle(self, commit: Mapping[str, Any]) -> None:
        """Make a commit visible to readers.

        In each leaf, the main table last: delete files that are not in the commit, copy the attachments from the
        staging folder, and write `_SUCCESS`. Several attempts may do this for the same commit, at the same time too;
        the result is the same.
        """
        for name, uri in self._uris.items():
            manifest, attempt = commit["manifests"][name], commit["attempt"]
            kept = {SUCCESS, SHARDS, attempts.FOLDER, f"{_STAGING}{attempt}"}
            kept |= {entry["name"] for entry in [*manifest["files"], *manifest["attachments"]]}
            for entry in self._files.list(uri):
                if entry.name not in kept:
                    self._files.delete(entry.uri)
            self._files.abort_uploads(uri, self._files.pending_uploads(uri))
            staged = self._staged(name, attempt)
            for file in manifest["attachments"]:
                if file["name"] in staged:
                    self._place(f"{self._staging(name, attempt)}/{file['name']}", f"{uri}/{file['name']}")
            marked = read_manifest(self._files, uri)
            if marked is None or marked["attempt"] != attempt:
                self._mark(uri, manifest)
            self._files.delete(self._staging(name, attempt))

    def _mark(self, uri: str, manifest: Mapping[str, Any]) -> None:
        self._files.write_text(f"{uri}/{SUCCESS}", json.dumps(manifest))

    def _place(self, source: str, target: str) -> None:
        try:
            self._files.copy(source, target)
        except Exception:
            if self._files.exists(source):
                raise
            # Another attempt has made the same commit visible and deleted the staged file: `target` is in place.

    def _take_back(self) -> None:
        """Remove our `_SUCCESS` files and raise RetryableError.

        Only on S3: a later attempt has overwritten our commit while we wrote it, so that attempt has won.
        """
        for uri in self._uris.values():
            manifest = read_manifest(self._files, uri)
            if manifest is not None and manifest["attempt"] == self._attempt:
                self._files.delete(f"{uri}/{SUCCESS}")
        later = self._attempts.later_commit()
        if later is not None:  # it may have written its `_SUCCESS` between our read and our delete
            self._settle(later)
        raise self._attempts.lost()

    def _discard(self) -> None:
        """Delete what this attempt wrote and did not commit, because SQL engines read every file in a folder."""
        for name, uri in self._uris.items():
            for file in self._own[name]:
                self._files.delete(f"{uri}/{file}")
            self._files.delete(self._staging(name))

    def _clear(self) -> None:
        """Delete what earlier attempts left, except the shards that they committed.

        Files are listed before the check for later attempts, and only listed files are deleted. So no file of a later
        attempt is among them.
        """
        found = {name: list(self._contents(uri)) for name, uri in self._uris.items()}
        uploads = {uri: self._files.pending_uploads(uri) for uri in self._uris.values()}
        self._shards, manifests = self._committed_shards(found)
        kept = {name: {file for part in self._parts(name) for file in part.files} for name in self._uris}
        self._attempts.check()
        for name in reversed(self._uris):  # the `_SUCCESS` of the main table first, so that nobody reads half a run
            marks = [entry for entry in found[name] if entry.name == SUCCESS]
            for entry in [*marks, *found[name]]:
                if entry.name not in kept[name] and entry.uri not in manifests:
                    self._files.delete(entry.uri)
        for uri, pending in uploads.items():
            self._files.abort_uploads(uri, pending)

    def _contents(self, uri: str) -> Iterator[FileInfo]:
        """The entries of a leaf that may be deleted. For folders that attempts share, it gives the entries in them."""
        for entry in self._files.list(uri):
            if entry.name in (_MAGIC_FOLDER, SHARDS):
                yield from self._files.list(entry.uri)
            # Not the attachments (`_…`): before we delete, a later commit may replace them under the same names.
            elif entry.name != attempts.FOLDER and (entry.is_folder or _is_data(entry) or entry.name == SUCCESS):
                yield entry

    def _committed_shards(self, found: Mapping[str, list[FileInfo]]) -> tuple[dict[int, _Committed], set[str]]:
        """The committed shards whose files all exist, by index, and the URIs of their manifests.

        ConfigError if a shard was committed with another configuration.
        """
        sizes = {name: {entry.name: entry.size for entry in entries} for name, entries in found.items()}
        shards: dict[int, _Committed] = {}
        manifests: set[str] = set()
        for entry in found[self._main]:
            if f"/{SHARDS}/" not in entry.uri or not entry.name.endswith(".json"):
                continue
            content = json.loads(self._files.read_text(entry.uri))
            self._refuse_other_configuration(content, entry.uri)
            parts = {name: _Part.of(part) for name, part in content["tables"].items()}
            whole = all(
                sizes[name].get(file) == size for name, part in parts.items() for file, size in part.files.items()
            )
            if whole and content["shard"] not in shards:
                shards[content["shard"]] = _Committed(int(content["rows_in"]), content["plan"], parts)
                manifests.add(entry.uri)
        return shards, manifests

    def _refuse_other_configuration(self, manifest: Mapping[str, Any] | None, where: str) -> None:
        if manifest is not None and manifest["config_sha256"] != self._config_digest:
            raise ConfigError(
                f"run {self._run_id} was committed with another configuration",
                where=where,
                hint="choose another --run-id",
            )


def _entries(files: Listing) -> list[dict[str, Any]]:
    return [{"name": name, "bytes": size} for name, size in files.items()]


def _listing(entries: Sequence[Mapping[str, Any]]) -> Listing:
    return {entry["name"]: entry["bytes"] for entry in entries}


def _is_data(file: FileInfo) -> bool:
    return not file.name.startswith(("_", "."))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


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
