"""DAG `geosieve_archive`: scan an archive, register what is new, and report on it; by spark-submit, once a day.

Put this file into Airflow's folder of DAGs. In the environment of its workers are

- `GEOSIEVE_HOME`, the checkout whose `jobs/` are run (default `/opt/geosieve`); `spark-submit` is that of its `.venv`,
- `GEOSIEVE_CONF`, a folder with one configuration for each job, `<job>.yaml` (default `/etc/geosieve`),
- credentials of the stores, as docs/cluster.md says. None stands here.

The exit codes of the jobs decide what happens. 0: done. 99: nothing to do; the task is shown as skipped, and the next
one runs all the same. 75: a store or an executor was lost; the task is tried again. All others, such as 65 and 78,
would come again, so the task fails at once.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.exceptions import AirflowException, AirflowFailException, AirflowSkipException
from airflow.providers.standard.hooks.subprocess import SubprocessHook
from airflow.sdk import DAG, BaseOperator

HOME = os.environ.get("GEOSIEVE_HOME", "/opt/geosieve")
CONF = os.environ.get("GEOSIEVE_CONF", "/etc/geosieve")
NOTHING_TO_DO, RETRYABLE = 99, 75
"""Exit codes of `geosieve.runtime.errors`, which Airflow's own environment does not have."""


class Job(BaseOperator):
    """A job of geosieve by spark-submit. Its report, one JSON object, becomes the task's result."""

    template_fields = ("command",)

    def __init__(self, *, job: str, **options: Any) -> None:
        super().__init__(task_id=job, **options)
        # A task that is tried again has the same run id: it finishes the run, or does nothing if it is committed.
        self.command = [
            *(f"{HOME}/.venv/bin/spark-submit", f"{HOME}/jobs/{job}.py"),
            *("--config", f"{CONF}/{job}.yaml", "--run-id", "{{ ts_nodash }}"),
        ]
        self.hook = SubprocessHook()

    def execute(self, context: Any) -> str:
        """Run the job. AirflowFailException, which is not tried again, unless a later attempt may succeed."""
        done = self.hook.run_command(self.command, cwd=HOME)
        if done.exit_code == NOTHING_TO_DO:
            raise AirflowSkipException("there is nothing to do")
        if done.exit_code == RETRYABLE:
            raise AirflowException(f"a later attempt may succeed: {done.output}")
        if done.exit_code != 0:
            raise AirflowFailException(f"exit code {done.exit_code}: {done.output}")
        return str(done.output)

    def on_kill(self) -> None:
        """End the job's processes with the task."""
        self.hook.send_sigterm()


with DAG(
    "geosieve_archive",
    description="Scan an archive, register its tables, report",
    schedule="@daily",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args={
        "retries": 3,
        "retry_delay": timedelta(minutes=5),
        "retry_exponential_backoff": True,
        "max_retry_delay": timedelta(hours=1),
    },
    tags=["geosieve"],
) as dag:
    scan = Job(job="geolocate_archive")
    # A scan that had nothing to do may follow one whose registration failed.
    register = Job(job="register_tables", trigger_rule="none_failed")
    report = Job(job="report_archive", trigger_rule="none_failed")
    scan >> register >> report
