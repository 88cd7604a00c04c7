"""Structured logs: one JSON object per line on standard error, with the run and the stage."""

from __future__ import annotations

import json
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime

from geosieve.runtime.errors import redact

RUN: ContextVar[dict[str, str] | None] = ContextVar("geosieve_run", default=None)
"""Fields of the current run (job, run_id, stage), which are added to every line."""


class _StandardError(logging.Handler):
    """Writes to the `sys.stderr` that is current at each record, because it can be redirected."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr, flush=True)


class JsonLines(logging.Formatter):
    """Formats a record as JSON; `extra={"fields": {...}}` adds fields. Credentials are removed."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            **(RUN.get() or {}),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return redact(json.dumps(line, default=str))


def logger() -> logging.Logger:
    """Return the package's logger; the first call attaches the JSON handler."""
    log = logging.getLogger("geosieve")
    if not log.handlers:
        handler = _StandardError()
        handler.setFormatter(JsonLines())
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        log.propagate = False
    return log
