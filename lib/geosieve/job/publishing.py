"""What every job that writes tables does: claim the run, do nothing if it is committed, and commit at the end."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TypeVar

from pydantic import Field, field_validator

from geosieve.job.main import Context, Run
from geosieve.runtime.config import Config
from geosieve.tables.publish import Leaf, Publication

VERSION = 1
"""Version of the configuration format. If a key changes its meaning, raise it and convert older configurations."""


class JobConfig(Config):
    """Base class for the configuration of every job that writes tables."""

    version: int = Field(VERSION, ge=1, description="version of the configuration format")
    output: str = Field(min_length=1, description="root folder of the tables, on any store")

    def beside_tables(self, kind: str, name: str, run_id: str) -> str:
        """The folder for a run's files of a `kind`, e.g. predictors, beside the tables; no engine reads it as rows."""
        return f"{self.output.rstrip('/')}/_{kind}/{name}/{run_id}"

    @field_validator("version")
    @classmethod
    def _known(cls, version: int) -> int:
        if version > VERSION:
            raise ValueError(f"a later geosieve wrote version {version}; this one reads up to {VERSION}")
        return version


C = TypeVar("C", bound=JobConfig)
Work = Callable[[Context[C], Publication], int]


def publishes(leaves: Callable[[C], list[Leaf]]) -> Callable[[Work[C]], Run[C]]:
    """Decorator that turns a function into a job that writes `leaves(config)`, the main table last.

    The function writes the tables and returns the number of input rows. Unless that equals the rows of the main table
    plus the rejects, IntegrityError is raised and nothing is committed. If the run is already committed, the function
    is not called. In a dry run it is called without claiming the run; it must write nothing and show its plan, and its
    result is ignored.
    """

    def job(work: Work[C]) -> Run[C]:
        @wraps(work)
        def run(context: Context[C]) -> None:
            publication = context.publication(context.config.output, leaves(context.config))
            if context.dry_run:
                work(context, publication)
            elif publication.begin():
                rows_in = work(context, publication)
                publication.commit(rows_in, context.report.to_json(status="done"))
            else:
                context.report.status = "nothing_to_do"

        return run

    return job
