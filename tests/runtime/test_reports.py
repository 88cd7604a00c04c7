"""What a run tells: reports, logs, errors and exit codes, without secrets."""

from __future__ import annotations

import json
import logging
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from geosieve.runtime import errors, jars
from geosieve.runtime.config import Config
from geosieve.runtime.errors import ConfigError, InputError, RetryableError, redact
from geosieve.runtime.failures import explain
from geosieve.runtime.job import Context, main
from geosieve.runtime.logs import JsonLines
from geosieve.runtime.report import JobReport

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("https://b.s3.amazonaws.com/x.tif?X-Amz-Credential=AKIA1&X-Amz-Signature=abcdef", "abcdef"),
        ("https://b.s3.amazonaws.com/x.tif?AWSAccessKeyId=AKIA1&Signature=zz9", "zz9"),
        ("fs.s3a.secret.key=hunter2", "hunter2"),
        ("fs.s3a.access.key=AKIA1", "AKIA1"),
        ("password=hunter2 and more", "hunter2"),
        ("s3a://user:hunter2@bucket/x", "hunter2"),
    ],
)
def test_secrets_are_removed(text: str, secret: str) -> None:
    assert secret in text and secret not in redact(text)
    assert secret not in str(InputError(text, where=text, hint=text))
    record = logging.LogRecord("geosieve", logging.INFO, "", 0, text, None, None)
    assert secret not in JsonLines().format(record)
    report = JobReport("j", "r")
    report.warn(text)
    assert secret not in report.to_json()


def test_a_log_line_is_one_json_object() -> None:
    record = logging.LogRecord("geosieve", logging.WARNING, "", 0, "two\nlines", None, None)
    line = JsonLines().format(record)
    assert "\n" not in line
    assert {"time", "level", "message"} <= json.loads(line).keys()


def test_errors_cross_processes_whole() -> None:
    error = pickle.loads(pickle.dumps(RetryableError("what", where="where", hint="hint")))
    assert type(error) is RetryableError and str(error) == "what | at where | hint"


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (ConfigError("x"), 78),
        (InputError("x"), 65),
        (RetryableError("x"), 75),
        (
            RuntimeError("...\ngeosieve.runtime.errors.InputError: the raster cannot be read | at s3a://b/x.tif\n..."),
            65,
        ),
        (OSError(28, "No space left on device"), 75),
        (RuntimeError("Status Code: 503; Error Code: SlowDown"), 75),
        (RuntimeError("HTTP response code: 503"), 75),
        (RuntimeError("AccessDenied; Status Code: 403"), 65),
        (RuntimeError("NoSuchBucket; Status Code: 404"), 65),
        (ZeroDivisionError("division by zero"), 70),
    ],
)
def test_schedulers_can_tell_failures_apart(failure: Exception, code: int) -> None:
    assert explain(failure)[1] == code


class Nothing(Config):
    output: str = "x"


def run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], function: object, *options: str
) -> tuple[int, dict[str, object]]:
    (tmp_path / "c.yaml").write_text("output: x\n")
    code = main("job", Nothing, function, ["--config", str(tmp_path / "c.yaml"), *options])  # type: ignore[arg-type]
    return code, json.loads(capsys.readouterr().out.splitlines()[-1])


def test_the_last_line_is_the_report_whatever_happens(
    spark: SparkSession, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def good(context: Context[Nothing]) -> None:
        print("noise")
        context.report.rows_in = 3

    def bad(context: Context[Nothing]) -> None:
        raise ZeroDivisionError("oops")

    code, report = run(tmp_path, capsys, good, "--run-id", "r-1.a_b")
    assert (code, report["status"], report["rows_in"], report["run_id"]) == (0, "done", 3, "r-1.a_b")
    code, report = run(tmp_path, capsys, bad)
    assert (code, report["status"]) == (70, "failed")
    assert "oops" in str(report["error"])


@pytest.mark.parametrize("run_id", ["a/b", "a b", "", "ä", "x" * 101, "a=b", "..%2f"])
def test_a_run_id_must_be_a_plain_folder_name(run_id: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(tmp_path, capsys, lambda context: None, "--run-id", run_id)


def test_a_session_made_elsewhere_is_not_stopped(
    spark: SparkSession, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path, capsys, lambda context: None)
    assert spark.range(3).count() == 3
    assert spark.conf.get("spark.sql.session.timeZone") == "UTC"


def test_a_missing_or_mismatched_jar_is_told_with_its_coordinates(spark: SparkSession) -> None:
    jars.check(spark, jars.ALL)
    absent = jars.Jar("org.example", "absent", "1.0", "org.example.Absent")
    with pytest.raises(ConfigError, match=r"org\.example:absent:1\.0 is not on"):
        jars.check(spark, (absent,))
    sedona = jars.SPATIAL[0]
    other = jars.Jar(sedona.group, sedona.artifact, "9.9.9", sedona.probe)
    with pytest.raises(ConfigError, match=r"sedona.*1\.8\.1\.jar is on Spark's class path where .*9\.9\.9 is needed"):
        jars.check(spark, (other,))


def test_jars_and_python_package_are_of_one_version() -> None:
    from importlib.metadata import version

    assert jars.SPATIAL[0].version == version("apache-sedona")


@pytest.mark.parametrize("job", sorted(path.name for path in (ROOT / "jobs").glob("*.py")))
def test_a_job_shows_its_options_and_exit_codes(job: str) -> None:
    done = subprocess.run([sys.executable, ROOT / "jobs" / job, "--help"], capture_output=True, text=True, check=True)
    assert all(option in done.stdout for option in ("--config", "--set", "--run-id", "--dry-run", "--local"))
    assert all(str(code) in done.stdout for code in (errors.EXIT_NOTHING_TO_DO, errors.EXIT_RETRYABLE))
