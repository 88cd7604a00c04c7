"""The DAG, loaded by Airflow itself in an environment of its own, which is made once, under build/airflow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from geosieve.runtime import errors

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy" / "airflow"
JOBS = ("geolocate_archive", "register_tables", "report_archive")


@pytest.fixture(scope="module")
def python() -> Path:
    """An interpreter that has Airflow."""
    folder = ROOT / "build" / "airflow"
    done, wanted = folder / ".done", (DEPLOY / "constraints.txt").read_text()
    if not done.exists() or done.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-compile", "--only-binary", ":all:"]
        subprocess.run([*pip, "-r", DEPLOY / "requirements.txt", "-c", DEPLOY / "constraints.txt"], check=True)
        done.write_text(wanted)
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout whose spark-submit ends with the number in the job's file."""
    made = tmp_path_factory.mktemp("airflow")
    for folder in ("jobs", ".venv/bin"):
        (made / folder).mkdir(parents=True)
    submit = made / ".venv/bin/spark-submit"
    submit.write_text('#!/bin/sh\necho "$@" >&2\necho \'{"status": "done"}\'\nexit $(cat "$1")\n')
    submit.chmod(0o755)
    return made


def facts(python: Path, home: Path, code: int) -> dict[str, Any]:
    """What Airflow finds, and what the tasks make of jobs that end with `code`."""
    for job in JOBS:
        (home / "jobs" / f"{job}.py").write_text(str(code))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {
        **{"GEOSIEVE_HOME": str(home), "GEOSIEVE_CONF": "/conf", "AIRFLOW_HOME": str(home / "airflow")},
        **{"AIRFLOW__CORE__LOAD_EXAMPLES": "False", "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR"},
    }
    probe = [python, Path(__file__).parent / "airflow_probe.py", DEPLOY]
    done = subprocess.run(probe, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_the_dag_is_scan_register_report(python: Path, home: Path) -> None:
    found = facts(python, home, errors.EXIT_DONE)
    assert found["dags"] == ["geosieve_archive"]
    assert found["arrows"] == {
        "geolocate_archive": ["register_tables"],
        "register_tables": ["report_archive"],
        "report_archive": [],
    }
    assert found["max_active_runs"] == 1 and found["catchup"] is False
    assert set(found["retries"].values()) == {3}
    assert found["rules"]["register_tables"] == found["rules"]["report_archive"] == "none_failed"
    for job in JOBS:
        assert found["commands"][job] == [
            *(f"{home}/.venv/bin/spark-submit", f"{home}/jobs/{job}.py"),
            *("--config", f"/conf/{job}.yaml", "--run-id", "{{ ts_nodash }}"),
        ]
        assert found["templated"][job] == ["command"]
    assert set(found["outcomes"].values()) == {'{"status": "done"}'}


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        (errors.EXIT_NOTHING_TO_DO, "AirflowSkipException"),
        (errors.EXIT_RETRYABLE, "AirflowException"),  # the only one that is tried again
        (errors.EXIT_BAD_INPUT, "AirflowFailException"),
        (errors.EXIT_BAD_CONFIG, "AirflowFailException"),
        (errors.EXIT_INTERNAL, "AirflowFailException"),
        (143, "AirflowFailException"),
    ],
)
def test_what_becomes_of_exit_codes(python: Path, home: Path, code: int, outcome: str) -> None:
    assert set(facts(python, home, code)["outcomes"].values()) == {outcome}


def test_a_run_id_of_airflow_is_one_of_ours() -> None:
    """`ts_nodash` of 1 January 2026."""
    from geosieve.job.main import _run_id

    assert _run_id("20260101T000000") == "20260101T000000"
