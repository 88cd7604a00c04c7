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

from geosieve.runtime import errors
from geosieve.runtime.config import Config
from geosieve.runtime.job import Context, main
from geosieve.runtime.logs import JsonLines, logger


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

    monkeypatch.setattr("geosieve.runtime.job.spark_session", no_session)
    code, report, _ = run(_raise(AssertionError()), "--set", "too=4")
    assert (code, report["status"]) == (78, "failed")
    assert "did you mean 'to'?" in report["error"]


def test_an_interrupt_is_not_swallowed(run: Runner) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(_raise(KeyboardInterrupt()))


@pytest.mark.parametrize("run_id", ["", "a/b", "a b", "../up", "ü", "a=b", "x" * 101])
def test_a_run_id_that_is_no_folder_name_is_refused(run: Runner, run_id: str) -> None:
    with pytest.raises(SystemExit) as caught:
        run(_raise(AssertionError()), "--run-id", run_id)
    assert caught.value.code == 2


def test_a_dry_run_shows_configuration_inputs_and_plans_without_secrets(run: Runner) -> None:
    def job(context: Context[Count]) -> None:
        assert context.dry_run
        context.show_plan({"numbers": "s3a://KEY:s3cr3tkey@bucket/n"}, {"count": context.spark.range(3)})

    code, report, printed = run(job, "--dry-run")
    assert (code, report["status"]) == (0, "dry_run")
    assert '"to": 3' in printed
    assert "Range" in printed
    assert "bucket/n" in printed
    assert "hunter2" not in printed and "s3cr3tkey" not in printed


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
