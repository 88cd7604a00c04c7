"""What every job's command line promises: exit codes, the report in the last line, logs as JSON lines."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from geosieve.job.main import Context, main
from geosieve.runtime import errors
from geosieve.runtime.config import Config
from geosieve.runtime.logs import JsonLines, logger
from geosieve.tables.publish import Leaf
from geosieve.tables.schemas import PARTITIONS, REJECTS


class Count(Config):
    """A job that counts to a number."""

    to: int
    password: str = "hunter2hunter2"


pytestmark = pytest.mark.usefixtures("spark")  # jobs use the session that there is


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    lines = io.StringIO()
    handler = logging.StreamHandler(lines)
    handler.setFormatter(JsonLines())
    logger().addHandler(handler)
    yield lines
    logger().removeHandler(handler)


class Runner:
    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._path, self._capsys = folder / "count.yaml", capsys
        self._path.write_text("to: 3\n")

    def __call__(self, run: Callable[[Context[Count]], None], *options: str) -> tuple[int, dict[str, Any], str]:
        """Exit code, report (the last line of the output) and all of the output."""
        code = main("count", Count, run, ["--config", str(self._path), "--run-id", "r1", *options])
        printed = self._capsys.readouterr().out
        return code, json.loads(printed.splitlines()[-1]), printed


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Runner:
    return Runner(tmp_path, capsys)


def _raise(error: BaseException) -> Callable[[Context[Count]], None]:
    def job(context: Context[Count]) -> None:
        raise error

    return job


def test_a_job_that_works_reports_its_counts_and_times(run: Runner) -> None:
    def job(context: Context[Count]) -> None:
        with context.report.stage("count"):
            context.report.rows_in = context.report.rows_out = context.spark.range(context.config.to).count()

    code, report, _ = run(job)
    assert (code, report["status"], report["error"]) == (0, "done", None)
    assert (report["job"], report["run_id"], report["rows_in"], report["rows_out"]) == ("count", "r1", 3, 3)
    assert set(report["seconds"]) == {"session", "count"}


def test_a_run_that_is_there_already_is_skipped_with_the_code_that_airflow_skips_on(run: Runner) -> None:
    def job(context: Context[Count]) -> None:
        context.report.status = "nothing_to_do"

    code, report, _ = run(job)
    assert (code, report["status"]) == (99, "nothing_to_do")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InputError("bad"), 65),
        (errors.ConfigError("bad"), 78),
        (errors.RetryableError("bad"), 75),
        (errors.IntegrityError("bad"), 70),
        (RuntimeError("bad"), 70),
        (OSError(28, "No space left on device"), 75),
    ],
)
def test_a_failure_ends_with_its_exit_code_and_still_a_report(run: Runner, error: Exception, code: int) -> None:
    found, report, _ = run(_raise(error))
    assert (found, report["status"]) == (code, "failed")
    assert report["error"]


def test_a_bad_configuration_ends_before_a_session_is_needed(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_session(*_: object) -> None:
        raise AssertionError("a session was asked for")

    monkeypatch.setattr("geosieve.job.main.spark_session", no_session)
    code, report, _ = run(_raise(AssertionError()), "--set", "too=4")
    assert (code, report["status"]) == (78, "failed")
    assert "did you mean 'to'?" in report["error"]


def test_an_interrupt_is_not_swallowed(run: Runner) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(_raise(KeyboardInterrupt()))


@pytest.mark.parametrize("run_id", ["", "a/b", "a b", "../up", "ü", "a=b", "x" * 101, "latest", "all"])
def test_a_run_id_that_is_no_folder_name_or_a_word_for_runs_is_refused(run: Runner, run_id: str) -> None:
    with pytest.raises(SystemExit) as caught:
        run(_raise(AssertionError()), "--run-id", run_id)
    assert caught.value.code == 78


@pytest.mark.parametrize("options", [["--cofnig", "x"], ["--set"], ["extra"]])
def test_a_wrong_command_line_has_the_code_of_a_bad_configuration(run: Runner, options: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run(_raise(AssertionError()), *options)
    assert caught.value.code == 78


def test_a_dry_run_shows_configuration_inputs_and_plans_without_secrets(run: Runner) -> None:
    def job(context: Context[Count]) -> None:
        assert context.dry_run
        context.show_plan({"numbers": "s3a://KEY:s3cr3tkey@bucket/n"}, {"count": context.spark.range(3)})

    code, report, printed = run(job, "--dry-run", "--verbose")
    assert (code, report["status"]) == (0, "dry_run")
    assert '"to": 3' in printed
    assert "Range" in printed
    assert "bucket/n" in printed
    assert "hunter2" not in printed and "s3cr3tkey" not in printed


@pytest.mark.parametrize(("below", "options"), [("file", []), ("file/sub", []), ("file/sub", ["--dry-run"])])
def test_an_output_that_is_a_file_is_refused_before_the_work(
    run: Runner, tmp_path: Path, below: str, options: list[str]
) -> None:
    (tmp_path / "file").write_text("x")
    code, report, _ = run(lambda context: check(context, str(tmp_path / below)), *options)
    assert code == 78
    assert "is a file, not a folder" in report["error"] and str(tmp_path / below) in report["error"]
    assert (tmp_path / "file").read_text() == "x"


def test_an_output_of_an_unknown_scheme_is_refused_before_the_work(run: Runner) -> None:
    code, report, _ = run(lambda context: check(context, "nosuch://bucket/tables"))
    assert code == 78
    assert "nosuch" in report["error"] and "nothing can be written there" in report["error"]


def test_an_output_that_cannot_be_made_is_refused_before_the_work(run: Runner) -> None:
    code, report, _ = run(lambda context: check(context, "/proc/geosieve/tables"))
    assert code == 78
    assert "nothing can be written there" in report["error"] and "/proc/geosieve" in report["error"]


def test_an_output_that_is_there_and_cannot_be_written_to_is_a_bad_configuration(run: Runner, tmp_path: Path) -> None:
    # /proc is a folder in which nobody can make anything, root neither. First as the output, then as the run's leaf.
    def job(context: Context[Count]) -> None:
        leaves = [Leaf(PARTITIONS, {"job": "count"}), Leaf(REJECTS, {"job": "count", "part": "all"})]
        publication = context.publication(roots[-1], leaves)
        assert publication.begin()
        publication.write(PARTITIONS, context.spark.createDataFrame([], PARTITIONS.spark_schema()))

    roots = ["/proc"]
    found = [(*run(job)[:2], "/proc/rejects/job=count")]
    for leaf in ("rejects/job=count/part=all/run_id=r1", "partitions/job=count"):  # at the claim; later, at a table
        roots.append(str(tmp_path / leaf.partition("/")[0]))
        link = Path(roots[-1]) / leaf
        link.parent.mkdir(parents=True)
        link.symlink_to("/proc")
        found.append((*run(job)[:2], str(link)))
    for code, report, where in found:
        assert code == 78, report["error"]
        assert "output: nothing can be written there" in report["error"] and f"at {where}" in report["error"]
        assert "set output to a folder that this user may write to" in report["error"]
    # An input that may not be read stays one.
    code, _, _ = run(_raise(RuntimeError("java.io.FileNotFoundException: /tables/images/a (Permission denied)")))
    assert code == 65


def test_an_output_that_can_be_made_is_and_a_dry_run_makes_none(run: Runner, tmp_path: Path) -> None:
    assert run(lambda context: check(context, str(tmp_path / "a/b")), "--dry-run")[0] == 0
    assert not (tmp_path / "a").exists()
    assert run(lambda context: check(context, str(tmp_path / "a/b")))[0] == 0
    assert list((tmp_path / "a/b").glob("[!.]*")) == []


def check(context: Context[Count], root: str) -> None:
    context.publication(root, [Leaf(REJECTS, {"job": "count", "part": "all"})])


def test_a_dry_run_says_that_a_committed_run_would_do_nothing(run: Runner, tmp_path: Path) -> None:
    def job(context: Context[Count]) -> None:
        publication = context.publication(str(tmp_path), [Leaf(REJECTS, {"job": "count", "part": "all"})])
        if context.dry_run:
            return context.show_plan({}, {})
        assert publication.begin()
        publication.write(REJECTS, context.spark.createDataFrame([], REJECTS.spark_schema()))
        return publication.commit(0, "{}")

    assert run(job, "--dry-run")[1]["warnings"] == []
    assert run(job)[0] == 0
    code, report, _ = run(job, "--dry-run")
    assert code == 0 and "r1 is committed already" in report["warnings"][0] and "do nothing" in report["warnings"][0]
    code, report, _ = run(job, "--dry-run", "--set", "to=4")
    assert code == 78 and "another configuration" in report["error"]


def test_a_verbose_dry_run_without_a_plan_says_so(run: Runner) -> None:
    code, _, printed = run(lambda context: context.show_plan({}, {}), "--dry-run", "--verbose")
    assert code == 0 and "no plan: " in printed


def test_a_dry_run_fits_on_a_screen_whatever_it_finds(run: Runner) -> None:
    def job(context: Context[Count]) -> None:
        context.show_plan({f"file {k}": "x" * 5000 for k in range(5000)}, {"count": context.spark.range(3)})

    code, _, printed = run(job, "--dry-run")
    shown = printed.splitlines()[:-1]
    assert code == 0
    assert len(shown) <= 40 and max(map(len, shown)) <= 170
    assert "4980 more lines: --verbose" in printed
    assert "Range" not in printed


def test_log_lines_are_json_with_job_run_and_stage(run: Runner, log: io.StringIO) -> None:
    def job(context: Context[Count]) -> None:
        with context.report.stage("read"):
            context.report.warn("something is odd")
        raise errors.InputError("cannot go on", where="file.csv")

    _, report, _ = run(job)
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert all((line["job"], line["run_id"]) == ("count", "r1") for line in lines)
    odd = next(line for line in lines if line["message"] == "something is odd")
    assert (odd["level"], odd["stage"]) == ("warning", "read")
    last = lines[-1]
    assert (last["level"], "stage" in last) == ("error", False)
    assert "cannot go on | at file.csv" in last["message"]
    assert "InputError" in last["traceback"]
    assert report["warnings"] == ["something is odd"]


def test_the_run_s_fields_end_with_the_run(run: Runner, log: io.StringIO) -> None:
    run(lambda context: None)
    logger().info("afterwards")
    assert "run_id" not in json.loads(log.getvalue().splitlines()[-1])


def test_a_session_made_elsewhere_is_used_and_not_stopped(run: Runner, spark: SparkSession) -> None:
    seen = []
    run(lambda context: seen.append(context.spark.sparkContext.applicationId))
    assert seen == [spark.sparkContext.applicationId]
    assert spark.range(3).count() == 3


def test_results_do_not_depend_on_the_session_s_settings(run: Runner, spark: SparkSession) -> None:
    spark.conf.set("spark.sql.session.timeZone", "Asia/Tokyo")
    zones = []
    run(lambda context: zones.append(context.spark.conf.get("spark.sql.session.timeZone")))
    assert zones == ["UTC"]


def test_what_fails_after_another_attempt_took_over_may_be_tried_again(run: Runner, tmp_path: Path) -> None:
    """Its files are gone, which looks like a missing input."""

    def overtaken(context: Context[Any]) -> None:
        leaves = [Leaf(REJECTS, {"job": "x", "part": "all"})]
        assert context.publication(str(tmp_path), leaves).begin()
        assert context.publication(str(tmp_path), leaves).begin()
        raise FileNotFoundError("404 Not Found: part-00000")

    code, report = run(overtaken)[:2]
    assert code == errors.EXIT_RETRYABLE
    assert "another attempt" in report["error"]
