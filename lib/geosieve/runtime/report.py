"""The report of one run: what went in, what came out, what was rejected, and how long each stage took."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from geosieve.runtime.errors import redact
from geosieve.runtime.logs import RUN, logger


@dataclass
class JobReport:
    """Facts about one run. As JSON, they are the job's last line on standard output and the file `_report.json`."""

    job: str
    run_id: str
    status: str = "failed"  # done | nothing_to_do | dry_run | failed
    rows_in: int = 0
    rows_out: int = 0
    rejected: dict[str, int] = field(default_factory=dict)  # number of rows by error class
    outputs: list[str] = field(default_factory=list)  # URIs of the written folders
    seconds: dict[str, float] = field(default_factory=dict)  # wall time in seconds by stage
    warnings: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)  # facts that are specific to the job
    error: str | None = None

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure the time of a stage and mark the log lines inside it. Times of a repeated stage are added up."""
        token = RUN.set({**(RUN.get() or {}), "stage": name})
        start = time.monotonic()
        try:
            yield
        finally:
            seconds = time.monotonic() - start
            self.seconds[name] = round(self.seconds.get(name, 0.0) + seconds, 3)
            logger().info("stage ended", extra={"fields": {"seconds": round(seconds, 3)}})
            RUN.reset(token)

    def warn(self, message: str) -> None:
        """Log a warning and keep it in the report."""
        self.warnings.append(redact(message))
        logger().warning(message)

    def to_json(self, **changes: Any) -> str:
        """Return the report as one JSON object, without credentials; `changes` replace fields."""
        return redact(json.dumps({**asdict(self), **changes}, default=str))
