"""Runs that commit in parts, and files beside tables."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from small_publication import MEASURED, leaves, measured, publication, readable, rejects

from geosieve.runtime.errors import ConfigError, InputError, IntegrityError, RetryableError
from geosieve.tables.publish import Publication, Shard
from geosieve.tables.read import attachment, committed_runs, read_committed
from geosieve.tables.schemas import REJECTS

PLAN = ["a.zip", "b.zip", "c.zip"]
ROWS, REJECTED = 10, 3


def _write(spark: SparkSession, shard: Shard, lost: int = 0) -> None:
    """Ten numbers of this shard's own and three rejects."""
    numbers = measured(spark, ROWS).withColumn("id", F.col("id") + 100 * shard.index)
    shard.write(MEASURED, numbers)
    shard.write(REJECTS, rejects(spark))
    shard.commit(ROWS + REJECTED + lost)


def _finish(spark: SparkSession, attempt: Publication, plan: list[str]) -> list[int]:
    """Write what is missing and commit; the shards that were written."""
    written = []
    for shard in attempt.shards(plan):
        _write(spark, shard)
        written.append(shard.index)
    assert attempt.rows_in == len(plan) * (ROWS + REJECTED)
    attempt.commit(attempt.rows_in, "{}")
    return written


def _died_after_two(spark: SparkSession, root: Path) -> None:
    attempt = publication(spark, root)
    assert attempt.begin()
    shards = attempt.shards(PLAN)
    _write(spark, next(shards))
    _write(spark, next(shards))
    next(shards).write(MEASURED, measured(spark, ROWS))  # dies here


def _ids(spark: SparkSession, root: Path) -> list[int]:
    return sorted(row["id"] for row in read_committed(spark, str(root), MEASURED).collect())


EXPECTED = [100 * shard + n for shard in range(3) for n in range(ROWS)]


@pytest.fixture(scope="module")
def died(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("died") / "tables"
    _died_after_two(spark, root)
    return root


@pytest.fixture
def root(died: Path, tmp_path: Path) -> Path:
    """Two of three shards are committed, a third is half written, and the driver is gone."""
    return Path(shutil.copytree(died, tmp_path / "tables"))


def test_readers_see_nothing_of_a_run_whose_shards_are_not_all_committed(spark: SparkSession, root: Path) -> None:
    assert readable(spark, root) == {}


def test_the_next_attempt_writes_the_missing_shard_only(spark: SparkSession, root: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in root.rglob("part-*.parquet")}
    attempt = publication(spark, root)
    assert attempt.begin()
    assert _finish(spark, attempt, PLAN) == [2]
    assert _ids(spark, root) == EXPECTED
    assert read_committed(spark, str(root), REJECTS).count() == 3 * REJECTED
    leaf = leaves(root)["measured"]
    manifest = json.loads((leaf / "_SUCCESS").read_text())
    assert manifest["rows"] == 3 * ROWS
    assert [shard["rows"] for shard in manifest["shards"]] == [ROWS] * 3
    assert sum(shard["files"] for shard in manifest["shards"]) == len(manifest["files"])
    after = {path.name: path.stat().st_mtime_ns for path in leaf.glob("part-*.parquet")}
    assert after.keys() == {file["name"] for file in manifest["files"]}  # the half shard is gone
    assert sum(before.get(name) == time for name, time in after.items()) == 4  # two files a shard are as they were
    assert publication(spark, root).begin() is False


@pytest.mark.parametrize("plan", [["a.zip", "other.zip", "c.zip"], [*PLAN, "d.zip"], PLAN[:1]])
def test_a_run_whose_inputs_have_changed_since_its_shards_were_committed_is_refused(
    spark: SparkSession, root: Path, plan: list[str]
) -> None:
    attempt = publication(spark, root)
    assert attempt.begin()
    with pytest.raises(InputError, match="choose another --run-id"):
        next(attempt.shards(plan))
    # Nothing is lost: with the old inputs it goes on.
    again = publication(spark, root)
    assert again.begin()
    assert _finish(spark, again, PLAN) == [2]


def test_shards_of_another_configuration_are_refused(spark: SparkSession, root: Path) -> None:
    with pytest.raises(ConfigError, match="another configuration"):
        publication(spark, root, digest="1" * 64).begin()


def test_a_committed_shard_whose_file_is_gone_is_written_again(spark: SparkSession, root: Path) -> None:
    leaf = leaves(root)["measured"]
    first = next(path for path in (leaf / "_shards").iterdir() if path.name.startswith("000000"))
    (leaf / json.loads(first.read_text())["tables"]["measured"]["files"][0]["name"]).unlink()
    attempt = publication(spark, root)
    assert attempt.begin()
    assert _finish(spark, attempt, PLAN) == [0, 2]
    assert _ids(spark, root) == EXPECTED


def test_a_file_lost_after_the_commit_costs_one_shard(spark: SparkSession, root: Path) -> None:
    attempt = publication(spark, root)
    attempt.begin()
    _finish(spark, attempt, PLAN)
    manifest = json.loads((leaves(root)["measured"] / "_SUCCESS").read_text())
    (leaves(root)["measured"] / manifest["files"][-1]["name"]).unlink()
    warnings: list[str] = []
    again = publication(spark, root, warn=warnings.append)
    assert again.begin()
    assert len(warnings) == 1
    assert _finish(spark, again, PLAN) == [2]
    assert _ids(spark, root) == EXPECTED


def test_a_shard_that_lost_a_row_is_not_committed(spark: SparkSession, root: Path) -> None:
    attempt = publication(spark, root)
    attempt.begin()
    (shard,) = attempt.shards(PLAN)
    with pytest.raises(IntegrityError, match="14 rows came in but 10 went out and 3"):
        _write(spark, shard, lost=1)
    with pytest.raises(IntegrityError, match="1 shards of 3 are not committed"):
        attempt.commit(3 * (ROWS + REJECTED), "{}")
    assert readable(spark, root) == {}


def test_the_rows_of_a_run_are_those_of_its_shards(spark: SparkSession, root: Path) -> None:
    attempt = publication(spark, root)
    attempt.begin()
    for shard in attempt.shards(PLAN):
        _write(spark, shard)
    assert attempt.written(MEASURED).count() == 3 * ROWS  # those of earlier attempts, too
    with pytest.raises(IntegrityError, match="40 rows came in but 30 went out and 9"):
        attempt.commit(40, "{}")


def test_an_attempt_that_lost_keeps_the_shards_that_it_committed(spark: SparkSession, root: Path) -> None:
    earlier, later = publication(spark, root), publication(spark, root)
    earlier.begin()
    (shard,) = earlier.shards(PLAN)
    _write(spark, shard)
    assert later.begin()
    with pytest.raises(RetryableError, match="another attempt"):
        earlier.commit(earlier.rows_in, "{}")
    assert _finish(spark, later, PLAN) == []
    assert _ids(spark, root) == EXPECTED


WEIGHTS = bytes(range(256)) * 1000


def test_files_beside_a_table_appear_with_the_run_and_are_checked(spark: SparkSession, tmp_path: Path) -> None:
    root, local = tmp_path / "tables", tmp_path / "weights"
    local.write_bytes(WEIGHTS)
    attempt = publication(spark, root)
    attempt.begin()
    attempt.write(MEASURED, measured(spark))
    attempt.write(REJECTS, rejects(spark))
    attempt.attach(MEASURED, "_weights.bin", local)
    attempt.attach(MEASURED, "_card.md", "an earlier text")
    attempt.attach(MEASURED, "_card.md", "# Åre")
    leaf = leaves(root)["measured"]
    assert not (leaf / "_weights.bin").exists()
    attempt.commit(43, "{}")
    manifest = json.loads((leaf / "_SUCCESS").read_text())
    listed = {file["name"]: (file["bytes"], file["sha256"]) for file in manifest["attachments"]}
    assert listed.keys() == {"_weights.bin", "_card.md", "_config.json", "_report.json"}
    assert listed["_weights.bin"] == (len(WEIGHTS), hashlib.sha256(WEIGHTS).hexdigest())
    assert listed["_card.md"] == (6, hashlib.sha256("# Åre".encode()).hexdigest())
    (run,) = committed_runs(spark, str(root), MEASURED)
    with attachment(spark, run, "_weights.bin") as path:
        assert path.read_bytes() == WEIGHTS
    (leaf / "_stray.bin").write_bytes(b"x")
    with pytest.raises(InputError, match=r"no file '_stray\.bin'"), attachment(spark, run, "_stray.bin"):
        pass
    (leaf / "_card.md").write_text("# Ore!")
    (leaf / "._card.md.crc").unlink(missing_ok=True)
    with pytest.raises(RetryableError, match="SHA-256"), attachment(spark, run, "_card.md"):
        pass
    (leaf / "_weights.bin").unlink()
    assert publication(spark, root, warn=lambda _: None).begin()


@pytest.mark.parametrize("name", ["weights.bin", "_SUCCESS", "_shards", "_a/b", ""])
def test_a_file_beside_a_table_has_a_name_that_engines_skip(spark: SparkSession, tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="begins with `_`"):
        publication(spark, tmp_path).attach(MEASURED, name, "")
