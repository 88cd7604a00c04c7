"""What every job that writes tables does: claim the run, do nothing where it is committed, and commit at the end."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TypeVar

from pydantic import Field, field_validator

from geosieve.job.main import Context, Run
from geosieve.runtime.config import Config
from geosieve.tables.publish import Leaf, Publication

VERSION = 1
"""Of configurations: it rises when a key changes its meaning, and what older ones said is then brought up to date."""


class JobConfig(Config):
    """Base of the configuration of every job that writes tables."""

    version: int = Field(VERSION, ge=1, description="of its format, as a saved configuration says")
    output: str = Field(min_length=1, description="root folder of the tables, on any store")

    @field_validator("version")
    @classmethod
    def _known(cls, version: int) -> int:
        if version > VERSION:
            raise ValueError(f"a later geosieve wrote version {version}; this one reads up to {VERSION}")
        return version


C = TypeVar("C", bound=JobConfig)
Work = Callable[[Context[C], Publication], int]


def publishes(leaves: Callable[[C], list[Leaf]]) -> Callable[[Work[C]], Run[C]]:
    """A job of a function that writes these leaves, the main table last.

    The function returns how many rows went in: as many as it has written and rejected, or nothing is committed. In a
    dry run it is called without a claim, shows its plan, and what it returns is ignored.
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
