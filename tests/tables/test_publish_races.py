"""One run id, several attempts; and what does not count as a committed run."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from pyspark.sql import DataFrame, SparkSession
from small_publication import (
    MEASURED,
    REJECTED,
    ROWS,
    leaves,
    measured,
    publication,
    publish,
    readable,
    rejects,
)

from geosieve.runtime.errors import ConfigError, IntegrityError, RetryableError
from geosieve.tables.publish import Publication
from geosieve.tables.read import committed_runs, read_runs
from geosieve.tables.schema import Table
from geosieve.tables.schemas import REJECTS

BOTH = {"measured", "rejects"}


def _snapshot(root: Path) -> dict[str, tuple[int, bytes]]:
    return {str(p): (p.stat().st_mtime_ns, p.read_bytes()) for p in root.rglob("*") if p.is_file()}


def test_a_committed_run_is_left_untouched_by_a_rerun(spark: SparkSession, tmp_path: Path) -> None:
    assert publish(spark, tmp_path) is True
    before = _snapshot(tmp_path)
    assert publish(spark, tmp_path) is False
    assert _snapshot(tmp_path) == before


def test_a_root_whose_name_looks_like_a_pattern(spark: SparkSession, tmp_path: Path) -> None:
    root = tmp_path / "out[1] {a,b}"
    assert publish(spark, root) is True
    assert readable(spark, root).keys() == BOTH


def test_a_run_id_committed_with_another_configuration_is_refused(spark: SparkSession, tmp_path: Path) -> None:
    publish(spark, tmp_path)
    before = _snapshot(tmp_path)
    with pytest.raises(ConfigError, match="another configuration"):
        publication(spark, tmp_path, digest="1" * 64).begin()
    assert _snapshot(tmp_path) == before


def test_a_commit_that_its_driver_could_not_mark_is_finished_but_not_taken_for_another_configurations(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Publication, "_mark", killed)
        with pytest.raises(Killed):
            publish(spark, tmp_path)
    assert readable(spark, tmp_path) == {}
    with pytest.raises(ConfigError, match="another configuration"):
        publication(spark, tmp_path, digest="1" * 64).begin()
    assert readable(spark, tmp_path).keys() == BOTH
    assert publish(spark, tmp_path) is False


def test_what_another_run_of_the_same_id_committed_is_not_cleared(spark: SparkSession, tmp_path: Path) -> None:
    """A side table is committed, the main one is not: it is another run's, of another main leaf."""
    publish(spark, tmp_path)
    (leaves(tmp_path)["measured"] / "_SUCCESS").unlink()
    before = _snapshot(tmp_path)
    with pytest.raises(ConfigError, match="another configuration"):
        publication(spark, tmp_path, digest="1" * 64).begin()
    assert _snapshot(tmp_path) == before


def test_the_later_attempt_takes_over_and_the_earlier_commits_nothing(spark: SparkSession, tmp_path: Path) -> None:
    earlier, later = publication(spark, tmp_path), publication(spark, tmp_path)
    assert earlier.begin()
    earlier.write(MEASURED, measured(spark))
    earlier.write(REJECTS, rejects(spark))
    assert later.begin()
    with pytest.raises(RetryableError, match="another attempt"):
        earlier.commit(ROWS + REJECTED, "{}")
    assert readable(spark, tmp_path) == {}
    later.write(MEASURED, measured(spark))
    later.write(REJECTS, rejects(spark))
    later.commit(ROWS + REJECTED, "{}")
    assert _rows(spark, tmp_path) == ROWS


def test_an_attempt_that_lost_its_claim_does_not_write_among_the_winner_s_files(
    spark: SparkSession, tmp_path: Path
) -> None:
    earlier, later = publication(spark, tmp_path), publication(spark, tmp_path)
    assert earlier.begin()
    assert later.begin()
    later.write(MEASURED, measured(spark))
    with pytest.raises(RetryableError, match="another attempt"):
        earlier.write(MEASURED, measured(spark))
    later.write(REJECTS, rejects(spark))
    later.commit(ROWS + REJECTED, "{}")
    assert _rows(spark, tmp_path) == ROWS


def test_what_a_loser_writes_beside_a_committed_run_is_removed(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = publication(spark, tmp_path)
    assert earlier.begin()
    save = earlier._save

    def overtaken(table: Table, frame: DataFrame, folder: str) -> None:
        publish(spark, tmp_path)  # the later attempt does its whole work just before our files appear
        save(table, frame, folder)

    monkeypatch.setattr(earlier, "_save", overtaken)
    with pytest.raises(RetryableError, match="another attempt"):
        earlier.write(MEASURED, measured(spark))
    assert _rows(spark, tmp_path) == ROWS
    folder = leaves(tmp_path)["measured"]
    assert pq.read_table(folder, partitioning=None).num_rows == ROWS  # as SQL engines read it: every file


def test_of_two_attempts_whose_tasks_write_at_once_one_wins(spark: SparkSession, tmp_path: Path) -> None:
    # Spark's committers of one folder remove each other's temporary files.
    hold, inside = tmp_path / "hold", tmp_path / "inside"
    hold.touch()

    def waiting(batches: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        for batch in batches:
            inside.touch()
            end = time.monotonic() + 60
            while hold.exists() and time.monotonic() < end:
                time.sleep(0.02)
            yield batch

    frame = measured(spark).coalesce(1)
    earlier = publication(spark, tmp_path / "tables")
    assert earlier.begin()
    with ThreadPoolExecutor() as pool:
        losing = pool.submit(earlier.write, MEASURED, frame.mapInPandas(waiting, frame.schema))
        end = time.monotonic() + 60
        while not inside.exists() and time.monotonic() < end:
            time.sleep(0.02)
        later = publication(spark, tmp_path / "tables")
        assert later.begin()
        assert later.write(MEASURED, frame) == ROWS
        hold.unlink()
        with pytest.raises(RetryableError, match="another attempt"):
            losing.result()
    later.write(REJECTS, rejects(spark))
    later.commit(ROWS + REJECTED, "{}")
    assert _rows(spark, tmp_path / "tables") == ROWS


def test_files_that_appear_after_writing_are_not_committed(spark: SparkSession, tmp_path: Path) -> None:
    # An attempt that has lost may move its files into the leaf before it finds out.
    attempt = publication(spark, tmp_path)
    attempt.begin()
    attempt.write(MEASURED, measured(spark))
    attempt.write(REJECTS, rejects(spark))
    leaf = leaves(tmp_path)["measured"]
    stray = leaf / "part-00000-stray-c000.zstd.parquet"
    stray.write_bytes(next(leaf.glob("part-*.parquet")).read_bytes())
    attempt.commit(ROWS + REJECTED, "{}")
    assert _rows(spark, tmp_path) == ROWS
    assert not stray.exists()


def test_an_attempt_killed_during_the_other_s_takeover_changes_nothing_for_it(
    spark: SparkSession, tmp_path: Path
) -> None:
    # The earlier attempt's failure while the leaf is cleared under it is a lost race, not a missing file.
    earlier, later = publication(spark, tmp_path), publication(spark, tmp_path)
    earlier.begin()

    def take_over_then_fail(number: int) -> int:
        raise FileNotFoundError(f"No such file or directory: _temporary/{number}")

    frame = measured(spark)
    broken = spark.createDataFrame(frame.rdd.map(lambda row: (take_over_then_fail(row[0]), row[1])), frame.schema)
    later.begin()
    with pytest.raises(RetryableError, match="another attempt"):
        earlier.write(MEASURED, broken)


@pytest.mark.parametrize("rows_in", [ROWS + REJECTED - 1, ROWS + REJECTED + 1, ROWS])
def test_a_lost_or_invented_row_commits_nothing(spark: SparkSession, tmp_path: Path, rows_in: int) -> None:
    attempt = publication(spark, tmp_path)
    attempt.begin()
    attempt.write(MEASURED, measured(spark))
    attempt.write(REJECTS, rejects(spark))
    with pytest.raises(IntegrityError, match=f"{rows_in} rows came in but {ROWS} went out and {REJECTED}"):
        attempt.commit(rows_in, "{}")
    assert readable(spark, tmp_path) == {}


@pytest.mark.parametrize("content", ["", "{}", "[]", "null", '{"name": "org.apache.hadoop…", "filenames": []}'])
def test_a_marker_of_another_engine_commits_nothing(spark: SparkSession, tmp_path: Path, content: str) -> None:
    # Spark's own `_SUCCESS` is empty; the magic committer's is JSON of another kind.
    leaf = leaves(tmp_path)["measured"]
    measured(spark).write.parquet(str(leaf))
    (leaf / "_SUCCESS").write_text(content)
    (leaf / "._SUCCESS.crc").unlink(missing_ok=True)
    assert readable(spark, tmp_path) == {}
    assert publish(spark, tmp_path)
    assert _rows(spark, tmp_path) == ROWS


def test_a_missing_file_of_a_committed_run_stops_the_reader(spark: SparkSession, tmp_path: Path) -> None:
    publish(spark, tmp_path)
    next(leaves(tmp_path)["measured"].glob("part-*.parquet")).unlink()
    with pytest.raises(RetryableError, match="1 files of a committed run are missing") as caught:
        _rows(spark, tmp_path)
    assert str(leaves(tmp_path)["measured"]) in caught.value.where


@pytest.mark.parametrize("name", ["rejects", "measured"])
@pytest.mark.parametrize("fault", ["gone", "cut short"])
def test_a_marker_over_missing_files_is_no_commit(spark: SparkSession, tmp_path: Path, name: str, fault: str) -> None:
    publish(spark, tmp_path)
    file = next(leaves(tmp_path)[name].glob("part-*.parquet"))
    if fault == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-1])
    warnings: list[str] = []
    attempt = publication(spark, tmp_path, warn=warnings.append)
    assert attempt.begin()
    assert readable(spark, tmp_path) == {}
    assert len(warnings) == 1
    assert f"1 files (e.g. {file.name}) of {name} are missing" in warnings[0]
    attempt.write(MEASURED, measured(spark))
    attempt.write(REJECTS, rejects(spark))
    attempt.commit(ROWS + REJECTED, "{}")
    assert _rows(spark, tmp_path) == ROWS
    assert publish(spark, tmp_path) is False


def test_marks_are_taken_back_where_the_slot_was_closed_while_they_were_written(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On S3 a request that takes very long may close an earlier attempt's slot after its commit."""
    earlier, later = publication(spark, tmp_path), publication(spark, tmp_path)
    earlier.begin()
    earlier.write(MEASURED, measured(spark))
    earlier.write(REJECTS, rejects(spark))
    mark = earlier._mark

    def late(uri: str, manifest: Mapping[str, Any]) -> None:
        later._attempts.take()
        (leaves(tmp_path)["measured"] / "_attempts/000001.commit").unlink(missing_ok=True)
        later._attempts.close_earlier()
        mark(uri, manifest)

    monkeypatch.setattr(earlier, "_mark", late)
    with pytest.raises(RetryableError, match="another attempt"):
        earlier.commit(ROWS + REJECTED, "{}")
    assert readable(spark, tmp_path) == {}
    assert publish(spark, tmp_path)
    assert _rows(spark, tmp_path) == ROWS


def test_a_file_that_no_manifest_lists_is_not_read(spark: SparkSession, tmp_path: Path) -> None:
    publish(spark, tmp_path)
    leaf = leaves(tmp_path)["measured"]
    (leaf / "part-copied.parquet").write_bytes(next(leaf.glob("part-*.parquet")).read_bytes())
    assert _rows(spark, tmp_path) == ROWS


def test_runs_come_in_the_order_of_their_commits(spark: SparkSession, tmp_path: Path) -> None:
    # Run ids say nothing about time: a backfill may be named after a day long past.
    for run_id, moment in (("b", "2024-01-02T00:00:00+00:00"), ("a", "2024-01-03T00:00:00+00:00")):
        publish(spark, tmp_path, run_id)
        _commit_at(tmp_path, run_id, moment)
    runs = committed_runs(spark, str(tmp_path), MEASURED)
    assert [run.run_id for run in runs] == ["b", "a"]
    assert [run.values for run in runs] == [{"source": "lab", "run_id": "b"}, {"source": "lab", "run_id": "a"}]


def test_commits_of_one_second_are_in_their_order(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for run_id, thousandths in (("c", 6), ("b", 7), ("a", 120)):
        clock = SimpleNamespace(now=lambda zone, k=thousandths: datetime(2024, 1, 2, 0, 0, 7, 1000 * k, zone))
        monkeypatch.setattr("geosieve.tables.publish.datetime", clock)
        publish(spark, tmp_path, run_id)
    assert [run.run_id for run in committed_runs(spark, str(tmp_path), MEASURED)] == ["c", "b", "a"]
    # Earlier versions wrote whole seconds.
    for run_id, moment in (("b", "00:00:07+00:00"), ("c", "00:00:07.004+00:00"), ("a", "00:00:08+00:00")):
        _commit_at(tmp_path, run_id, f"2024-01-02T{moment}")
    assert [run.run_id for run in committed_runs(spark, str(tmp_path), MEASURED)] == ["b", "c", "a"]


def test_the_configuration_and_report_lie_beside_the_rows(spark: SparkSession, tmp_path: Path) -> None:
    publish(spark, tmp_path)
    leaf = leaves(tmp_path)["measured"]
    assert json.loads((leaf / "_config.json").read_text()) == {"answer": 42}
    assert json.loads((leaf / "_report.json").read_text()) == {"status": "done"}


def _commit_at(root: Path, run_id: str, moment: str) -> None:
    """Change the time of a commit."""
    marker = leaves(root, run_id)["measured"] / "_SUCCESS"
    marker.write_text(json.dumps({**json.loads(marker.read_text()), "committed_at": moment}))
    (marker.parent / "._SUCCESS.crc").unlink(missing_ok=True)


def _rows(spark: SparkSession, root: Path) -> int:
    return read_runs(spark, str(root), MEASURED, committed_runs(spark, str(root), MEASURED)).count()
