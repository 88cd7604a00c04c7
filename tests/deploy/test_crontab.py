"""The crontab's lines, run as cron runs them, with a spark-submit that only ends with a given exit code."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from geosieve.runtime import errors

CRONTAB = Path(__file__).parents[2] / "deploy" / "cron" / "geosieve"
JOBS = ("geolocate_archive", "register_tables", "report_archive")
LINES = [line for line in CRONTAB.read_text("utf-8").splitlines() if line and line[0] in "0123456789*"]


def run(line: str, home: Path) -> str:
    """The output of a line, which has five fields of time, a user, and the command with `%` as `\\%`."""
    command = line.split(maxsplit=6)[6]
    assert "%" not in command.replace("\\%", "")  # cron ends the command there
    places = {"GEOSIEVE": home, "CONF": home / "conf", "LOG": home / "log"}
    environment = {"PATH": os.environ["PATH"], **{name: str(path) for name, path in places.items()}}
    words = ["/bin/bash", "-c", command.replace("\\%", "%")]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.stdout


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A checkout whose jobs end with the number in a file."""
    for folder in ("jobs", "log", ".venv/bin"):
        (tmp_path / folder).mkdir(parents=True)
    submit = tmp_path / ".venv/bin/spark-submit"
    submit.write_text('#!/bin/sh\necho "$@"\nexit $(cat "$1")\n')
    submit.chmod(0o755)
    for job in JOBS:
        (tmp_path / "jobs" / f"{job}.py").write_text("0")
    return tmp_path


@pytest.mark.parametrize(
    ("code", "begun", "mailed"),
    [
        (errors.EXIT_DONE, 3, False),
        (errors.EXIT_NOTHING_TO_DO, 3, False),
        (errors.EXIT_RETRYABLE, 1, True),
        (errors.EXIT_BAD_CONFIG, 1, True),
    ],
)
def test_the_next_job_runs_after_a_good_end_only(home: Path, code: int, begun: int, mailed: bool) -> None:
    (home / "jobs/geolocate_archive.py").write_text(str(code))
    nightly, morning = LINES
    assert run(nightly, home) == ""
    codes = (home / "log/codes").read_text().splitlines()
    assert [line.split()[1] for line in codes] == list(JOBS[:begun]) and codes[0].split()[2] == str(code)
    (call,) = (home / "log/geolocate_archive.jsonl").read_text().splitlines()
    day = codes[0].split()[0]
    assert call == f"jobs/geolocate_archive.py --config {home}/conf/geolocate_archive.yaml --run-id {day}"
    assert (f"geolocate_archive {code}" in run(morning, home)) == mailed
