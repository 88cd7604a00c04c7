"""Reading tables: only committed runs, and only the files that their manifests list."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import file_digest
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F
from pyspark.sql.types import StringType, StructField, StructType

from geosieve.runtime.errors import InputError, RetryableError
from geosieve.runtime.files import Files
from geosieve.runtime.names import advice, did_you_mean
from geosieve.runtime.store import StoreFiles
from geosieve.tables.parquet import read_files
from geosieve.tables.publish import read_manifest
from geosieve.tables.schema import Table

LATEST, ALL = "latest", "all"
"""Words that select runs; no run may have one of them as its id. Configurations use them, too."""


@dataclass(frozen=True)
class Attachment:
    """A file published next to a run's Parquet files, as the manifest lists it; `sha256` is in hex."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Run:
    """A committed run of a table.

    `uri` is its leaf folder; `values` has all partition columns, with `run_id`; `rows` is the number of rows; `files`
    has the names of the Parquet files in the leaf, `bytes` is the sum of their sizes. `committed_at` is UTC in ISO 8601
    format, to the millisecond, or to the second in runs of earlier versions; as texts, both are in the order of time.
    `attempt` is the id of the attempt that committed it. `replaces` has the attempts of the runs of which this one took
    the place, by run id; `switch` is then the main table's leaf of this run, as a path below the root.
    """

    uri: str
    values: dict[str, str]
    rows: int
    committed_at: str
    files: tuple[str, ...]
    attachments: tuple[Attachment, ...] = ()
    bytes: int = 0
    attempt: str = ""
    replaces: Mapping[str, str] = field(default_factory=dict)
    switch: str | None = None

    @property
    def run_id(self) -> str:
        """The id of the run."""
        return self.values["run_id"]

    @property
    def group(self) -> tuple[str, ...]:
        """Its partition values without the run id."""
        return tuple(value for name, value in self.values.items() if name != "run_id")


def committed_runs(spark: SparkSession, root: str, table: Table, **values: str) -> list[Run]:
    """The committed runs of `table` below the folder `root`, in the order of their commits.

    Runs whose place another one has taken are left out. `values` selects runs by partition columns, e.g. `source="a"`;
    without it, all runs are returned. The list may be empty. ValueError if the table has no such partition column.
    """
    return find_runs(Files(spark), root, table, **values)


def find_runs(files: Files | StoreFiles, root: str, table: Table, **values: str) -> list[Run]:
    """As `committed_runs`, with the session's files or, without a session, those of `StoreFiles`."""
    wanted = values.pop("run_id", None)  # whether a run is replaced, only the others say
    runs = counting(_marked(files, root, table, **values))
    return [run for run in runs if wanted in (None, run.run_id)]


def marked_runs(spark: SparkSession, root: str, table: Table, **values: str) -> list[Run]:
    """As `committed_runs`, with the runs whose place another one has taken. Their rows are in that one, too."""
    return _marked(Files(spark), root, table, **values)


def _marked(files: Files | StoreFiles, root: str, table: Table, **values: str) -> list[Run]:
    unknown = values.keys() - {column.name for column in table.partition_columns}
    if unknown:
        raise ValueError(f"table {table.name} has no partition column {', '.join(sorted(unknown))}")
    leaves = [(f"{root.rstrip('/')}/{table.name}", dict[str, str]())]
    for column in table.partition_columns:
        leaves = [
            (entry.uri, {**known, column.name: entry.name.partition("=")[2]})
            for folder, known in leaves
            for entry in files.list(folder)
            if entry.is_folder and entry.name.startswith(f"{column.name}=")
        ]
        if column.name in values:
            leaves = [leaf for leaf in leaves if leaf[1][column.name] == values[column.name]]
    found = [(uri, known, read_manifest(files, uri)) for uri, known in leaves]
    runs = [_run(uri, known, manifest) for uri, known, manifest in found if manifest is not None]
    # A run that replaces others counts, in all of its tables, from the moment when its main table has it.
    runs = [run for run in runs if run.switch is None or _is_marked(files, root, run)]
    return sorted(runs, key=lambda run: (run.committed_at, run.run_id))


def replaced(runs: list[Run]) -> list[Run]:
    """Those of `runs`, all marked runs of a table, whose place others of them have taken."""
    gone = {(*run.group, *one) for run in runs for one in run.replaces.items()}
    return [run for run in runs if (*run.group, run.run_id, run.attempt) in gone]


def counting(runs: list[Run]) -> list[Run]:
    """Those of `runs`, all marked runs of a table, whose place no other has taken."""
    gone = {run.uri for run in replaced(runs)}
    return [run for run in runs if run.uri not in gone]


def _run(uri: str, values: dict[str, str], manifest: Mapping[str, Any]) -> Run:
    replaces = manifest.get("replaces", {"runs": {}, "when": None})
    return Run(
        uri,
        values,
        int(manifest["rows"]),
        str(manifest["committed_at"]),
        tuple(entry["name"] for entry in manifest["files"]),
        tuple(Attachment(**entry) for entry in manifest.get("attachments", ())),
        sum(int(entry["bytes"]) for entry in manifest["files"]),
        str(manifest["attempt"]),
        replaces["runs"],
        replaces["when"],
    )


def _is_marked(files: Files | StoreFiles, root: str, run: Run) -> bool:
    main = read_manifest(files, f"{root.rstrip('/')}/{run.switch}")
    return main is not None and main["attempt"] == run.attempt


def select_runs(runs: list[Run], which: str, where: str) -> list[Run]:
    """Select from `runs`, which must be in the order of their commits.

    `which` is LATEST (the latest run for each combination of partition values), ALL, or a run id. InputError if no
    run is selected; `where` is the place that the error names.
    """
    if which == LATEST:
        # For example, a later run of a source replaces the earlier runs of that source, not those of other sources.
        chosen = list({run.group: run for run in runs}.values())
    else:
        chosen = [run for run in runs if which in (ALL, run.run_id)]
    if not chosen:
        known = ", ".join(run.run_id for run in runs) or "none"
        near = did_you_mean(which, (run.run_id for run in runs))
        raise InputError(f"no committed run {which!r}; committed runs: {known}", where=where, hint=near)
    return chosen


def select_run(runs: list[Run], which: str, where: str) -> Run:
    """The one run that `which` selects, for tables of which each run has all rows.

    InputError as for `select_runs`, and if it selects several.
    """
    chosen = select_runs(runs, which, where)
    if len(chosen) > 1:
        raise InputError(f"{len(chosen)} runs", where=where, hint="each run has all rows: name one, or `latest`")
    return chosen[0]


def named_run(
    spark: SparkSession, root: str, table: Table, name: str, which: str, kind: tuple[str, str], maker: str
) -> Run:
    """The one run that `which` selects, among those of a table whose first partition column is `name`.

    `kind`: what such a name stands for, in singular and plural; `maker`: the job that makes it. InputError as for
    `select_run`, and if nothing has this name; it tells the nearest one.
    """
    where, column = f"{root}/{table.name}", table.partitions[0].name
    runs = committed_runs(spark, root, table)
    known = {run.values[column] for run in runs}
    if name not in known:
        hint = advice(name, known, kind[1]) if known else f"run {maker} first"
        raise InputError(f"no committed run of the {kind[0]} {name!r}", where=where, hint=hint)
    return select_run([run for run in runs if run.values[column] == name], which, where)


def read_runs(spark: SparkSession, root: str, table: Table, runs: list[Run]) -> DataFrame:
    """The rows of committed runs, with the partition columns as strings. A geometry is WKB.

    InputError if `runs` is empty. RetryableError if a file in a manifest does not exist, because then another attempt
    is replacing the run.
    """
    if not runs:
        raise InputError("no committed run to read", where=f"{root}/{table.name}")
    files = Files(spark)
    for run in runs:
        missing = set(run.files) - {entry.name for entry in files.list(run.uri)}
        if missing:
            raise RetryableError(f"{len(missing)} files of a committed run are missing", where=run.uri)
    partitions = [StructField(column.name, StringType()) for column in table.partition_columns]
    schema = StructType([*table.spark_schema().fields, *partitions])
    return read_files(spark, schema, {run.uri: run.files for run in runs}, base=f"{root.rstrip('/')}/{table.name}")


def read_committed(spark: SparkSession, root: str, table: Table, **values: str) -> DataFrame:
    """The rows of all committed runs with these partition values; result and errors as for `read_runs`."""
    return read_runs(spark, root, table, committed_runs(spark, root, table, **values))


def with_places(rows: DataFrame, runs: list[Run]) -> DataFrame:
    """Rows that `read_runs` gives for `runs`, with a column `place`: the place of their run in this list, from 0."""
    places = [(*run.values.values(), place) for place, run in enumerate(runs)]
    schema = ", ".join(f"{name} string" for name in runs[0].values)
    listed = rows.sparkSession.createDataFrame(places, f"{schema}, place int")
    return rows.join(F.broadcast(listed), [*runs[0].values]).select(*rows.columns, "place")


def latest_rows(rows: DataFrame, runs: list[Run], *keys: str) -> DataFrame:
    """Of rows with equal `keys`, those of the latest run. All rows of that run stay, and rows that it has not.

    `rows`: some or all that `read_runs` gives for `runs`, which are in the order of their commits.
    """
    if len(runs) == 1:
        return rows
    latest = F.rank().over(Window.partitionBy(*keys).orderBy(F.desc("place")))
    return with_places(rows, runs).withColumn("latest", latest).where("latest = 1").drop("place", "latest")


@contextmanager
def attachment(spark: SparkSession, run: Run, name: str) -> Iterator[Path]:
    """An attachment of a run as a local path. A copy from a remote store is deleted at the end of the block.

    InputError if the manifest does not list it or the file does not exist, RetryableError if its SHA-256 is not that of
    the manifest.
    """
    listed = {attached.name: attached for attached in run.attachments}
    if name not in listed:
        known = ", ".join(sorted(listed)) or "none"
        raise InputError(f"the run has no file {name!r} beside its rows; it has {known}", where=run.uri)
    with Files(spark).local_copy(f"{run.uri}/{name}") as local:
        with open(local, "rb") as file:
            digest = file_digest(file, "sha256").hexdigest()
        if digest != listed[name].sha256:
            raise RetryableError(
                f"{name} is not the file that the run published: it has another SHA-256", where=run.uri
            )
        yield Path(local)
