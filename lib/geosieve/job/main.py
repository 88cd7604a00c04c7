"""What every job does: parse the command line, load the configuration, run, print the report, return the exit code."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Generic, NoReturn, TypeVar

from pyspark.sql import DataFrame, SparkSession

from geosieve.runtime import errors
from geosieve.runtime.config import Config, load
from geosieve.runtime.failures import explain
from geosieve.runtime.files import Files
from geosieve.runtime.logs import RUN, logger
from geosieve.runtime.output import check_output, refused_to_write
from geosieve.runtime.progress import progress_bar
from geosieve.runtime.report import JobReport
from geosieve.runtime.session import spark_session
from geosieve.runtime.streams import standard_error
from geosieve.tables.publish import Leaf, Publication
from geosieve.tables.read import ALL, LATEST

C = TypeVar("C", bound=Config)

_LINES, _WIDTH = 20, 160  # a dry run prints this many lines of the configuration and of the inputs, cut to this width


@dataclass(frozen=True)
class Context(Generic[C]):
    """What a job works with: Spark session, configuration, report (with the run id), options and publications."""

    spark: SparkSession
    config: C
    report: JobReport
    dry_run: bool
    verbose: bool = False
    publications: list[Publication] = field(default_factory=list)

    def publication(self, root: str, leaves: list[Leaf]) -> Publication:
        """Create the publication that writes the tables of this run below `root`. `leaves` has the main table last.

        ConfigError if `root` is a file, is below a file, or cannot be created.
        """
        check_output(Files(self.spark), root, make=not self.dry_run)
        publication = Publication(
            self.spark,
            root,
            self.report.run_id,
            errors.redact(self.config.model_dump_json(indent=1)),
            self.config.digest(),
            leaves,
            self.report.warn,
        )
        self.publications.append(publication)
        self.report.outputs = publication.uris
        return publication

    @contextmanager
    def told_apart(self) -> Iterator[None]:
        """Replace an error inside the block by the error that names its cause.

        RetryableError if another attempt has taken over the run; ConfigError if the file system refuses to write to the
        folders of the run. ConfigError, InputError and all others are raised unchanged.
        """
        try:
            yield
        except (errors.ConfigError, errors.InputError):
            raise
        except Exception as failure:
            for publication in self.publications:
                try:
                    publication.check()
                except errors.RetryableError as lost:
                    raise lost from failure
            refused = refused_to_write(failure, [uri for publication in self.publications for uri in publication.uris])
            if refused is not None:
                raise refused from failure
            raise

    def show_plan(self, inputs: dict[str, Any], frames: dict[str, DataFrame]) -> None:
        """Print what a dry run shows: the configuration, the inputs and, if `verbose`, Spark's plans of `frames`.

        Unless `verbose`, configuration and inputs are cut to fit on a screen. The inputs also go into the report.
        Nothing is written, and no frame is computed. If the run is committed already, the report has a warning.
        """
        print(errors.redact(_shown(self.config.model_dump_json(indent=1).splitlines(), self.verbose)))
        found = [f"input {name}: {value}" for name, value in inputs.items()]
        print(errors.redact(_shown(found, self.verbose)))
        if self.verbose:
            jvm: Any = self.spark._jvm
            for name, frame in frames.items():
                plan = jvm.PythonSQLUtils.explainString(frame._jdf.queryExecution(), "formatted")
                print(errors.redact(f"plan of {name}:\n{plan}"))
            if not frames:
                print("no plan: this job has no frames before it has computed what they depend on")
        if any(publication.committed() for publication in self.publications):
            self.report.warn(f"run {self.report.run_id} is committed already: without --dry-run it would do nothing")
        self.report.details["inputs"] = inputs if self.verbose else _shown_values(inputs)
        self.report.status = "dry_run"


def _shown(lines: list[str], verbose: bool) -> str:
    """The lines as one text; unless `verbose`, only the first `_LINES`, each cut to `_WIDTH` characters."""
    if verbose:
        return "\n".join(lines)
    cut = [_cut(line) for line in lines[:_LINES]]
    if len(lines) > _LINES:
        cut.append(f"… {len(lines) - _LINES} more lines: --verbose")
    return "\n".join(cut)


def _shown_values(inputs: dict[str, Any]) -> dict[str, Any]:
    return {k: v if isinstance(v, int | float) else _cut(str(v)) for k, v in list(inputs.items())[:_LINES]}


def _cut(text: str) -> str:
    return text if len(text) <= _WIDTH else f"{text[:_WIDTH]}…"


Run = Callable[[Context[C]], None]


def main(job: str, model: type[C], run: Run[C], arguments: Sequence[str] | None = None) -> int:
    """Run a job from its command line and return the exit code. The last line on standard output is the report.

    `job` is the name of the job, `model` its configuration class, `run` its function. `arguments` are those after the
    program's name; by default they come from `sys.argv`. Errors of the job become exit codes; a wrong command line
    raises SystemExit with the code for a bad configuration.
    """
    with standard_error():
        return _run(job, model, run, _parse(job, arguments))


def _run(job: str, model: type[C], run: Run[C], options: argparse.Namespace) -> int:
    report = JobReport(job, options.run_id)
    token = RUN.set({"job": job, "run_id": options.run_id})
    try:
        config = load(model, options.config, options.set)
        with ExitStack() as stack:
            with report.stage("session"):
                spark = stack.enter_context(spark_session(f"geosieve {job}", options.local))
            stack.enter_context(progress_bar(spark, job))
            context = Context(spark, config, report, options.dry_run, options.verbose)
            stack.enter_context(context.told_apart())
            run(context)
        if any(publication.finished for publication in context.publications):
            report.status = "done"
            report.warn(
                "an earlier attempt had committed this run and ended before its tables could be read; now they can"
            )
        report.status = "done" if report.status == "failed" else report.status
        code = errors.EXIT_NOTHING_TO_DO if report.status == "nothing_to_do" else errors.EXIT_DONE
    except Exception as failure:  # noqa: BLE001 - the one place where failures become reports and exit codes
        report.error, code = explain(failure)
        logger().error(report.error, extra={"fields": {"traceback": traceback.format_exc()}})
    finally:
        RUN.reset(token)
    print(report.to_json(), flush=True)
    return code


class _Parser(argparse.ArgumentParser):
    """Exits with the code for a bad configuration instead of argparse's 2, so that one table has all exit codes."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(errors.EXIT_BAD_CONFIG, f"{self.prog}: error: {message}\n")


def _parse(job: str, arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _Parser(
        prog=job,
        epilog="exit codes: 0 done, 99 nothing to do, 65 bad input, 78 bad configuration or usage, 75 retryable, "
        "70 other",
    )
    parser.add_argument("--config", required=True, help="YAML file, see conf/")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override, e.g. a.b=c")
    parser.add_argument("--run-id", default=datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ"), type=_run_id)
    parser.add_argument("--dry-run", action="store_true", help="print what would be done; write nothing")
    parser.add_argument("--verbose", action="store_true", help="a dry run prints all inputs and Spark's plans, too")
    parser.add_argument("--local", action="store_true", help="run on this machine with all cores")
    return parser.parse_args(arguments)


def _run_id(text: str) -> str:
    # The run id becomes part of a folder name, which every SQL engine must read without escaping.
    if not text or len(text) > 100 or not all(c.isascii() and (c.isalnum() or c in "-_.") for c in text):
        raise argparse.ArgumentTypeError("a run id holds only letters, digits, '-', '_' and '.'")
    if text in (LATEST, ALL):
        raise argparse.ArgumentTypeError(f"{text!r} is a word that chooses runs where they are read")
    return text
