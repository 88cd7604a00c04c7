"""What every job does: parse, load the configuration, run, report, exit code."""

from __future__ import annotations

import argparse
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from pyspark.sql import DataFrame, SparkSession

from geosieve.runtime import errors
from geosieve.runtime.config import Config, load
from geosieve.runtime.failures import explain
from geosieve.runtime.logs import RUN, logger
from geosieve.runtime.progress import progress_bar
from geosieve.runtime.report import JobReport
from geosieve.runtime.session import spark_session
from geosieve.tables.publish import Leaf, Publication

C = TypeVar("C", bound=Config)


@dataclass(frozen=True)
class Context(Generic[C]):
    """What a job works with: its session, configuration, run id and report."""

    spark: SparkSession
    config: C
    report: JobReport
    dry_run: bool

    def publication(self, root: str, leaves: list[Leaf]) -> Publication:
        """A publication of this run's tables, main table last."""
        publication = Publication(
            self.spark,
            root,
            self.report.run_id,
            errors.redact(self.config.model_dump_json(indent=1)),
            self.config.digest(),
            leaves,
        )
        self.report.outputs = publication.uris
        return publication

    def show_plan(self, inputs: dict[str, Any], frames: dict[str, DataFrame]) -> None:
        """For a dry run: put the inputs found and Spark's plans into the report. Nothing is written."""
        jvm: Any = self.spark._jvm
        explain = jvm.PythonSQLUtils.explainString
        plans = {name: explain(frame._jdf.queryExecution(), "formatted") for name, frame in frames.items()}
        print(errors.redact(self.config.model_dump_json(indent=1)))
        for name, found in inputs.items():
            print(errors.redact(f"input {name}: {found}"))
        for name, plan in plans.items():
            print(errors.redact(f"plan of {name}:\n{plan}"))
        self.report.details["inputs"] = inputs
        self.report.status = "dry_run"


Run = Callable[[Context[C]], None]


def main(job: str, model: type[C], run: Run[C], arguments: Sequence[str] | None = None) -> int:
    """Run a job from its command line; the last line on standard output is its report. Returns the exit code."""
    options = _parse(job, arguments)
    report = JobReport(job, options.run_id)
    token = RUN.set({"job": job, "run_id": options.run_id})
    try:
        config = load(model, options.config, options.set)
        with ExitStack() as stack:
            with report.stage("session"):
                spark = stack.enter_context(spark_session(f"geosieve {job}", options.local))
            stack.enter_context(progress_bar(spark, job))
            run(Context(spark, config, report, options.dry_run))
        report.status = "done" if report.status == "failed" else report.status
        code = errors.EXIT_NOTHING_TO_DO if report.status == "nothing_to_do" else errors.EXIT_DONE
    except Exception as failure:  # noqa: BLE001 - the one place where failures become reports and exit codes
        report.error, code = explain(failure)
        logger().error(report.error, extra={"fields": {"traceback": traceback.format_exc()}})
    finally:
        RUN.reset(token)
    print(report.to_json(), flush=True)
    return code


def _parse(job: str, arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=job,
        epilog="exit codes: 0 done, 99 nothing to do, 65 bad input, 78 bad configuration, 75 retryable, 70 other",
    )
    parser.add_argument("--config", required=True, help="YAML file, see conf/")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override, e.g. a.b=c")
    parser.add_argument("--run-id", default=datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ"), type=_run_id)
    parser.add_argument("--dry-run", action="store_true", help="print what would be done; write nothing")
    parser.add_argument("--local", action="store_true", help="run on this machine with all cores")
    return parser.parse_args(arguments)


def _run_id(text: str) -> str:
    # It becomes a folder name that every SQL engine must take as it is.
    if not text or len(text) > 100 or not all(c.isascii() and (c.isalnum() or c in "-_.") for c in text):
        raise argparse.ArgumentTypeError("a run id holds only letters, digits, '-', '_' and '.'")
    return text
