"""Job `compact`: one new run in place of many small runs of a ranking, with the same rows.

The tables of answers are written together, because rows of `image_summary` name the run that holds their answer.
The new run's manifests name the runs that it replaces. For readers all tables switch at once: when `image_summary`
gets its `_SUCCESS`. The replaced runs stay on the store until `retire_runs` takes them.

The run's id is the number of the compaction, not `--run-id`: two that work at once are then two attempts at one run, of
which one wins, and never two runs with the same rows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from geosieve.job.main import Context
from geosieve.runtime.errors import InputError, IntegrityError, RetryableError, redact
from geosieve.runtime.files import Files
from geosieve.runtime.identity import content_digest
from geosieve.runtime.lease import holder, scan_lock
from geosieve.runtime.output import check_output
from geosieve.sql.config import CompactConfig
from geosieve.tables.publish import Leaf, Publication
from geosieve.tables.read import Run, counting, marked_runs, read_runs, replaced, with_places
from geosieve.tables.schema import Table
from geosieve.tables.schemas import IMAGE_KEY, IMAGE_SUMMARY, PREDICTIONS, RANKED_REGIONS

JOB = "compact"
REPLACES = "_replaces.json"
_SORTED = {
    PREDICTIONS: (*IMAGE_KEY, "predictor"),
    RANKED_REGIONS: ("s2_id",),
    IMAGE_SUMMARY: IMAGE_KEY,
}
"""The tables, the main one last, and what their files are sorted by.

`scanned_files` and `rejects` stay: a scan compares them run by run. And so does `audit`, which nobody should rewrite.
"""
_FILE_BYTES = 128 << 20
_NUMBERED = re.compile(r"compact-(\d{6,})")


def compact(context: Context[CompactConfig]) -> None:
    """Write one run in place of those runs of a ranking that may be joined; see `_joinable`.

    Nothing to do if there are fewer than two. InputError if the ranking has no committed run; RetryableError if runs
    come or go meanwhile, or if a scan of the ranking is at work; IntegrityError if the rows that were written are not
    those that were read.
    """
    config, report, spark = context.config, context.report, context.spark
    refuse_scan(Files(spark), config.root, config.ranking)
    with report.stage("look"):
        marked = {table: marked_runs(spark, config.root, table, ranking=config.ranking) for table in _SORTED}
        valid = {table: counting(runs) for table, runs in marked.items()}
        if not valid[IMAGE_SUMMARY]:
            raise InputError(
                f"no committed run of the ranking {config.ranking!r}", where=f"{config.root}/{IMAGE_SUMMARY.name}"
            )
        joined, left = _joinable(spark, config, valid, _successors(marked[IMAGE_SUMMARY]))
        report.details["left"] = left
    run_id = _next_id(marked[IMAGE_SUMMARY])
    leaves = [Leaf(table, {"ranking": config.ranking}) for table in _SORTED]
    # Options such as `small_mib` must not keep a later attempt from finishing the commit of a dead one.
    digest = content_digest("compaction", 1, {"ranking": config.ranking})
    check_output(Files(spark), config.root, make=False)
    publication = Publication(
        *(spark, config.root, run_id, redact(config.model_dump_json(indent=1)), digest, leaves, report.warn)
    )
    context.publications.append(publication)
    if context.dry_run:
        context.show_plan({"joined": ", ".join(joined), **{f"left {name}": why for name, why in left.items()}}, {})
        return
    if len(joined) < 2 or not publication.begin():
        report.status = "nothing_to_do"
        return
    report.outputs, report.details["run"] = publication.uris, run_id
    links = _links(marked[IMAGE_SUMMARY], joined, run_id)
    tables = {}
    for table, keys in _SORTED.items():
        with report.stage(table.name):
            chosen = [run for run in valid[table] if run.run_id in joined]
            tables[table.name] = _write(spark, config.root, publication, table, keys, chosen, links)
    report.rows_in = report.rows_out = tables[IMAGE_SUMMARY.name]["rows"]
    report.details["tables"] = tables
    # With the runs that these have replaced: else they would come back if one of these were deleted before them.
    replaces = {
        table.name: _attempts([run for run in runs if run.run_id in joined]) | _attempts(replaced(runs))
        for table, runs in marked.items()
    }
    publication.replace(replaces)
    listed = {name: sorted(runs) for name, runs in replaces.items()}
    publication.attach(IMAGE_SUMMARY, REPLACES, json.dumps({"run_id": run_id, "replaces": listed}))
    report.details["replaces"] = sorted({name for runs in listed.values() for name in runs})
    refuse_scan(Files(spark), config.root, config.ranking)
    for table, runs in marked.items():
        _check_unchanged(spark, config, table, runs)
    publication.commit(report.rows_in, report.to_json(status="done"))


def refuse_scan(files: Files, root: str, ranking: str) -> None:
    """RetryableError if a scan of the ranking is at work: its run may refer to answers that others have now."""
    lock = scan_lock(root, ranking)
    who = holder(files, lock)
    if who is not None:
        raise RetryableError(f"{who} scans for the ranking {ranking!r}", where=lock, hint="run again when it has ended")


def _successors(marked: list[Run]) -> dict[str, str]:
    """By each run that does not count any more, the run that has its rows."""
    valid = {run.run_id for run in counting(marked)}
    found = {old: run.run_id for run in marked for old in run.replaces if old not in valid}
    for old in found:
        while found[old] in found:
            found[old] = found[found[old]]
    return found


def _joinable(
    spark: SparkSession, config: CompactConfig, valid: Mapping[Table, list[Run]], successors: Mapping[str, str]
) -> tuple[list[str], dict[str, str]]:
    """The ids of runs that may become one, and of the others with the reason why they may not.

    An image counts by its latest run, and rows of one run have no order in time. So a run stays as it is if a later one
    has answered one of its images again, or if it is large. And so does a run to which such a run refers, because its
    references cannot be changed.
    """
    runs = valid[IMAGE_SUMMARY]
    sizes = {run.run_id: 0 for run in runs}
    for run in (run for of in valid.values() for run in of if run.run_id in sizes):
        sizes[run.run_id] += run.bytes
    left = {name: "large" for name, size in sizes.items() if size > config.small_mib * (1 << 20)}
    summaries = read_runs(spark, config.root, IMAGE_SUMMARY, runs)
    for name in _answered_again(summaries, runs):
        left.setdefault(name, "a later run answers some of its images again")
    pairs = summaries.select("run_id", "answer_run_id").distinct().collect()
    refers = [(row["run_id"], successors.get(row["answer_run_id"], row["answer_run_id"])) for row in pairs]
    todo = list(left)
    while todo:
        name = todo.pop()
        for other in (target for source, target in refers if source == name and target in sizes and target not in left):
            left[other] = f"{name} refers to it and stays"
            todo.append(other)
    return [run.run_id for run in runs if run.run_id not in left], left


def _answered_again(summaries: DataFrame, runs: list[Run]) -> list[str]:
    """Runs with an image that a later run has, too. `runs`: in the order of their commits."""
    placed = with_places(summaries, runs)
    images = placed.groupBy(*IMAGE_KEY).agg(F.collect_set("place").alias("places")).where("size(places) > 1")
    earlier = images.select(F.explode(F.expr("filter(places, p -> p < array_max(places))")).alias("place")).distinct()
    return [runs[row["place"]].run_id for row in earlier.collect()]


def _attempts(runs: list[Run]) -> dict[str, str]:
    return {run.run_id: run.attempt for run in runs}


def _next_id(marked: Iterable[Run]) -> str:
    numbers = [int(match[1]) for match in (_NUMBERED.fullmatch(run.run_id) for run in marked) if match]
    return f"compact-{max(numbers, default=0) + 1:06d}"


def _links(marked: list[Run], joined: list[str], run_id: str) -> dict[str, str]:
    """What becomes of the values of `answer_run_id` that change."""
    found = {old: run_id if new in joined else new for old, new in _successors(marked).items()}
    return found | {name: run_id for name in joined}


def _write(
    spark: SparkSession,
    root: str,
    publication: Publication,
    table: Table,
    keys: tuple[str, ...],
    runs: list[Run],
    links: Mapping[str, str],
) -> dict[str, int]:
    """Write the rows of runs, with their references renewed, and compare what was written. Returns counts."""
    if runs:
        rows = read_runs(spark, root, table, runs).select([column.name for column in table.columns])
    else:
        rows = spark.createDataFrame([], table.spark_schema())
    if table is IMAGE_SUMMARY:
        renewed = spark.createDataFrame(list(links.items()), "answer_run_id string, renewed string")
        rows = rows.join(F.broadcast(renewed), "answer_run_id", "left")
        rows = rows.withColumn("answer_run_id", F.coalesce("renewed", "answer_run_id")).drop("renewed")
    files = max(1, -(-sum(run.bytes for run in runs) // _FILE_BYTES))
    publication.write(table, rows.repartitionByRange(files, *keys).sortWithinPartitions(*keys))
    written = publication.written(table)
    before, after = (_fingerprint(frame, table) for frame in (rows, written))
    listed = sum(run.rows for run in runs)
    if before != after or before["rows"] != listed:
        raise IntegrityError(
            f"rows of {table.name} differ: {listed} listed, {before} read, {after} written", where=root
        )
    return {"rows": listed, "runs": len(runs), "files_before": sum(len(run.files) for run in runs), "files": files}


def _fingerprint(frame: DataFrame, table: Table) -> dict[str, Any]:
    """The number of rows and the sum of their hashes of 64 bits: the same for the same rows in any order."""
    one = F.xxhash64(*(column.name for column in table.columns)).cast("decimal(38,0)")
    return frame.agg(F.count("*").alias("rows"), F.sum(one).alias("hashes")).collect()[0].asDict()


def _check_unchanged(spark: SparkSession, config: CompactConfig, table: Table, runs: list[Run]) -> None:
    now = marked_runs(spark, config.root, table, ranking=config.ranking)
    known = {(run.run_id, run.attempt) for run in runs}
    if {(run.run_id, run.attempt) for run in now} != known:
        raise RetryableError(
            f"runs of {table.name} have come or gone since this job began", where=config.root, hint="run again"
        )
