"""Job `retire_runs`: runs leave the tables and their catalogue, and after a grace period the store.

Without a checksum the job prints which runs would go, and a checksum of that list. With it, the job retires them, but
only if the list is still the same. It works in two steps, and a journal below `_retired` says how far it is:

1. `plan.json` is written. Then each run loses its `_SUCCESS`, so that no reader finds it and `register_tables` does not
   add it again, and its `_attempts`, so that nobody completes its commit again. Then it leaves the catalogue, and
   `retired.json` is written. Who has begun to read a run goes on reading its files.
2. After the grace period the same command deletes the folders, and writes `deleted.json`.

Each step may be done twice. So after a crash the same command goes on where it ended.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from geosieve.job.main import Context
from geosieve.runtime.errors import InputError
from geosieve.runtime.files import Files
from geosieve.runtime.identity import content_digest
from geosieve.runtime.names import advice
from geosieve.sql.compact import refuse_scan
from geosieve.sql.config import Chosen, RetireConfig
from geosieve.sql.iceberg import IcebergTable, connect, explained
from geosieve.tables import attempts
from geosieve.tables.publish import CONFIG, SUCCESS, Leaf, read_manifest
from geosieve.tables.read import Run, counting, marked_runs, read_runs, replaced
from geosieve.tables.schema import Table
from geosieve.tables.schemas import ALL, IMAGE_SUMMARY, OVERLAY_ATOMS, RANKED_REGIONS

JOB = "retire_runs"
FOLDER = "_retired"
"""Folder of the journals below the root; no engine reads it as a table."""
_TABLES = {table.name: table for table in ALL}
_FIRST = (IMAGE_SUMMARY.name, RANKED_REGIONS.name)
"""Retired before all others, in this order: what refers to answers goes before them."""


@dataclass(frozen=True)
class Leaving:
    """A run of a table that is to go. `values` has the partition columns with `run_id`; `attempt` wrote it."""

    table: str
    values: Mapping[str, str]
    attempt: str
    files: int
    rows: int
    bytes: int

    @classmethod
    def of(cls, table: Table, run: Run) -> Leaving:
        """A committed run."""
        return cls(table.name, run.values, run.attempt, len(run.files), run.rows, run.bytes)

    @property
    def path(self) -> str:
        """Its folder, below the root of the tables."""
        return Leaf(_TABLES[self.table], self.values).uri("", self.values["run_id"]).lstrip("/")

    @property
    def text(self) -> str:
        """What is printed of it."""
        return f"{self.path}: {self.files} files, {self.rows} rows, {self.bytes} bytes"


@dataclass(frozen=True)
class Journal:
    """What is known of one list of runs that go, by its checksum."""

    files: Files
    folder: str

    def read(self, name: str) -> dict[str, Any] | None:
        """The content of one of its files, or None."""
        uri = f"{self.folder}/{name}.json"
        if not self.files.exists(uri):
            return None
        content: dict[str, Any] = json.loads(self.files.read_text(uri))
        return content

    def write(self, name: str, content: Mapping[str, Any]) -> None:
        """Write one of its files, which is never changed afterwards."""
        self.files.write_text(f"{self.folder}/{name}.json", json.dumps(content, indent=1))


def retire_runs(context: Context[RetireConfig]) -> None:
    """Print the chosen runs and their checksum or, if the configuration has that checksum, retire them.

    InputError if there is no such run, if the list is not that of the checksum, or if a run that stays needs one of
    them. RetryableError if a scan is at work, which may come to refer to them. Nothing to do if all of them are gone,
    or if their grace period is not over.
    """
    config, report, spark = context.config, context.report, context.spark
    files = Files(spark)
    root = config.root.rstrip("/")
    journal = Journal(files, f"{root}/{FOLDER}/{config.checksum}") if config.checksum else None
    known = journal.read("plan") if journal else None
    if known is not None:
        leaving = [Leaving(**entry) for entry in known["runs"]]
    else:
        if journal is not None:
            _refuse_scans(files, config)
        with report.stage("look"):
            leaving = _chosen(spark, config, report.warn)
        if not leaving:
            report.status = "nothing_to_do"
            return
    report.rows_in = sum(one.rows for one in leaving)
    if context.dry_run or journal is None:
        report.details["checksum"] = _checksum(root, leaving)
        context.show_plan({"runs": len(leaving)}, {})
        print("\n".join(one.text for one in leaving))
        print(f"nothing is done yet; these go with --set checksum={report.details['checksum']}")
        return
    if known is None:
        _check(config.checksum or "", _checksum(root, leaving), leaving)
        _refuse_scans(files, config)  # one may have begun since
        journal.write("plan", {"at": _now().isoformat(), "runs": [vars(one) for one in leaving]})
    if config.catalog is not None:
        connect(spark, config.catalog)
    retired = journal.read("retired")
    if retired is None:
        with report.stage("retire"):
            for one in leaving:
                _take_mark(files, root, one)
            _leave_catalogue(spark, config, leaving)
            retired = {"at": _now().isoformat()}
            journal.write("retired", retired)
        report.details["retired"] = len(leaving)
    due = datetime.fromisoformat(retired["at"]) + timedelta(days=config.grace_days)
    report.details["files_go_at"] = due.isoformat(timespec="seconds")
    if _now() >= due and journal.read("deleted") is None:
        with report.stage("delete"):
            report.details["deleted"] = _delete(spark, config, files, root, leaving, report.warn)
            journal.write("deleted", {"at": _now().isoformat()})
    if not {"retired", "deleted"} & report.details.keys():
        report.status = "nothing_to_do"


def _refuse_scans(files: Files, config: RetireConfig) -> None:
    if config.tables is not None and not set(_FIRST) & set(config.tables):
        return
    for entry in files.list(f"{config.root.rstrip('/')}/{RANKED_REGIONS.name}"):
        ranking = entry.name.partition("=")[2]
        if config.values.get("ranking", ranking) == ranking:
            refuse_scan(files, config.root, ranking)


def _chosen(spark: SparkSession, config: RetireConfig, warn: Callable[[str], None]) -> list[Leaving]:
    """The runs that the configuration chooses, in the order in which they go. InputError if others need them."""
    tables = [table for table in ALL if config.tables is None or table.name in config.tables]
    tables = [table for table in tables if config.values.keys() <= {column.name for column in table.partitions}]
    marked = {table.name: marked_runs(spark, config.root, table) for table in ALL}
    going: dict[str, list[Run]] = {}
    for table in tables:
        mine = [run for run in marked[table.name] if config.values.items() <= run.values.items()]
        going[table.name] = _with_replaced(_select(config.retire, mine), marked[table.name])
    if config.retire.runs is not None:
        known = {run.run_id for table in tables for run in marked[table.name]}
        for name in config.retire.runs:
            if name not in {run.run_id for of in going.values() for run in of}:
                hint = advice(name, known, "runs")
                raise InputError(f"no committed run {name!r} of these tables", where=config.root, hint=hint)
    staying = {name: [run for run in of if run not in going.get(name, [])] for name, of in marked.items()}
    _refuse_referred(spark, config.root, going, staying)
    _refuse_halves(going, staying)
    _warn_of_named(Files(spark), going, staying, warn)
    _warn_of_overlays(spark, config.root, going, staying, warn)
    gone = {run.uri for of in marked.values() for run in replaced(of)}
    pairs = [(run.uri not in gone, Leaving.of(_TABLES[name], run)) for name, of in going.items() for run in of]
    # The replaced ones first: without the run that replaces them they would count again.
    pairs.sort(key=lambda pair: (pair[0], _place(pair[1].table), pair[1].path))
    return [one for _, one in pairs]


def _place(table: str) -> int:
    return _FIRST.index(table) if table in _FIRST else len(_FIRST)


def _select(chosen: Chosen, runs: list[Run]) -> list[Run]:
    """Of the marked runs of one table, in the order of their commits."""
    if chosen.runs is not None:
        return [run for run in runs if run.run_id in chosen.runs]
    if chosen.replaced:
        return replaced(runs)
    valid = counting(runs)
    if chosen.older_than_days is not None:
        limit = _now() - timedelta(days=chosen.older_than_days)
        return [run for run in valid if datetime.fromisoformat(run.committed_at) < limit]
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in valid:
        groups.setdefault(run.group, []).append(run)
    return [run for of in groups.values() for run in of[: -(chosen.all_but_newest or 1)]]


def _with_replaced(chosen: list[Run], marked: list[Run]) -> list[Run]:
    """With the runs that would count again if those are gone."""
    staying = [run for run in marked if run not in chosen]
    back = {run.uri for run in counting(staying)} - {run.uri for run in counting(marked)}
    return [run for run in marked if run in chosen or run.uri in back]


def _refuse_referred(
    spark: SparkSession, root: str, going: Mapping[str, list[Run]], staying: Mapping[str, list[Run]]
) -> None:
    """InputError if `image_summary` of a run that stays refers to answers in a run that goes."""
    answers = {(run.values["ranking"], run.run_id) for run in going.get(RANKED_REGIONS.name, ())}
    rankings = {ranking for ranking, _ in answers}
    summaries = [run for run in counting(staying[IMAGE_SUMMARY.name]) if run.values["ranking"] in rankings]
    if not summaries:
        return
    ids = sorted({run_id for _, run_id in answers})
    rows = read_runs(spark, root, IMAGE_SUMMARY, summaries).where(F.col("answer_run_id").isin(ids))
    counts = rows.groupBy("ranking", "run_id", "answer_run_id").count().collect()
    found = sorted(
        f"{row['count']} images of run {row['run_id']} of {row['ranking']} have their answer in {row['answer_run_id']}"
        for row in counts
        if (row["ranking"], row["answer_run_id"]) in answers
    )
    if found:
        raise InputError(
            f"a run that stays needs one that would go: {'; '.join(found[:10])}",
            where=f"{root}/{IMAGE_SUMMARY.name}",
            hint="retire these runs as well, in both tables, or compact the ranking first",
        )


def _refuse_halves(going: Mapping[str, list[Run]], staying: Mapping[str, list[Run]]) -> None:
    """InputError if a run that replaces others stays in a table, but goes in the one that makes it count."""
    mains = {run.switch for name, of in going.items() for run in of if (run.switch or "").startswith(f"{name}/")}
    for name, runs in staying.items():
        for run in runs:
            if run.switch in mains:
                raise InputError(
                    f"run {run.run_id} would stay in {name} and go in the table that makes it count",
                    where=run.uri,
                    hint="retire it in all tables",
                )


def _warn_of_named(
    files: Files, going: Mapping[str, list[Run]], staying: Mapping[str, list[Run]], warn: Callable[[str], None]
) -> None:
    """Warn if the configuration of a run that stays names a run that goes, e.g. that of an overlay."""
    names = {run.run_id for of in going.values() for run in of}
    for run in (run for of in staying.values() for run in of):
        if run.run_id not in names and CONFIG in {attached.name for attached in run.attachments}:
            found = sorted(names & set(_texts(json.loads(files.read_text(f"{run.uri}/{CONFIG}")))))
            if found:
                warn(f"the configuration of {run.uri} names {', '.join(found)}, which would go")


def _warn_of_overlays(
    spark: SparkSession,
    root: str,
    going: Mapping[str, list[Run]],
    staying: Mapping[str, list[Run]],
    warn: Callable[[str], None],
) -> None:
    """Warn if the atoms of answers that stay would not be found in any overlay."""
    atoms, summaries = going.get(OVERLAY_ATOMS.name, []), counting(staying[IMAGE_SUMMARY.name])
    if not atoms or not summaries:
        return
    known = read_runs(spark, root, OVERLAY_ATOMS, atoms).select("overlay_hash").distinct()
    if staying[OVERLAY_ATOMS.name]:
        kept = read_runs(spark, root, OVERLAY_ATOMS, staying[OVERLAY_ATOMS.name]).select("overlay_hash")
        known = known.join(kept, "overlay_hash", "left_anti")
    used = read_runs(spark, root, IMAGE_SUMMARY, summaries).select("ranking", "overlay_hash").distinct()
    for row in used.join(known, "overlay_hash").orderBy("ranking").collect():
        warn(f"answers of ranking {row['ranking']} are regions of the overlay {row['overlay_hash']}, which would go")


def _texts(content: Any) -> Iterable[str]:
    """All texts in a JSON value."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, list | dict):
        for value in content.values() if isinstance(content, dict) else content:
            yield from _texts(value)


def _checksum(root: str, leaving: list[Leaving]) -> str:
    """Numbers of runs, files, rows and bytes, and a hash of the list."""
    sums = [len(leaving), *(sum(getattr(one, what) for one in leaving) for what in ("files", "rows", "bytes"))]
    digest = content_digest("retirement", 1, {"root": root, "runs": [vars(one) for one in leaving]})
    return "-".join([*map(str, sums), digest[:16]])


def _check(given: str, found: str, leaving: list[Leaving]) -> None:
    if given == found:
        return
    names = ("runs", "files", "rows", "bytes")
    pairs = list(zip(names, given.split("-"), found.split("-"), strict=False))
    changes = [f"{old} {name} then, {new} now" for name, old, new in pairs if old != new]
    listed = "; ".join(one.text for one in leaving[:10])
    raise InputError(
        f"the list of runs has changed: {', '.join(changes) or 'as many, but others'}; it begins with {listed}",
        where=f"checksum {given}",
        hint=f"look at the list again without a checksum; that of the list now is {found}",
    )


def _take_mark(files: Files, root: str, one: Leaving) -> None:
    """Uncommit a run, unless it was written anew since the list was made."""
    leaf = f"{root}/{one.path}"
    manifest = read_manifest(files, leaf)
    if manifest is None or manifest["attempt"] == one.attempt:
        files.delete(f"{leaf}/{SUCCESS}")
        files.delete(f"{leaf}/{attempts.FOLDER}")


def _leave_catalogue(spark: SparkSession, config: RetireConfig, leaving: list[Leaving]) -> None:
    if config.catalog is None:
        return
    tables: dict[str, IcebergTable | None] = {}
    with explained(spark, config.catalog):
        for one in leaving:
            if one.table not in tables:
                folders = tuple(column.name for column in _TABLES[one.table].partition_columns)
                tables[one.table] = IcebergTable.existing(spark, config.namespace, one.table, folders)
            table = tables[one.table]
            if table is not None:
                table.remove(one.values)


def _delete(
    spark: SparkSession,
    config: RetireConfig,
    files: Files,
    root: str,
    leaving: list[Leaving],
    warn: Callable[[str], None],
) -> int:
    """Delete the folders of runs that are retired. Returns how many; those that were written anew stay."""
    again = [
        one for one in leaving if any(files.exists(f"{root}/{one.path}/{name}") for name in (SUCCESS, attempts.FOLDER))
    ]
    for one in again:
        warn(f"{one.path} is written anew since it was retired: it stays")
    gone = [one for one in leaving if one not in again]
    _leave_catalogue(spark, config, gone)  # a registration that had begun before may have added them
    for one in gone:
        files.delete(f"{root}/{one.path}")
    return len(gone)


def _now() -> datetime:
    return datetime.now(UTC)
