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
    """Facts of one run; its JSON object is the job's last line on standard output and `_report.json`."""

    job: str
    run_id: str
    status: str = "failed"  # done | nothing_to_do | dry_run | failed
    rows_in: int = 0
    rows_out: int = 0
    rejected: dict[str, int] = field(default_factory=dict)  # rows by error class
    outputs: list[str] = field(default_factory=list)  # URIs of the written leaves
    seconds: dict[str, float] = field(default_factory=dict)  # wall time by stage
    warnings: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)  # what only this job can tell
    error: str | None = None

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage (repeated stages add up) and mark the log lines inside it."""
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
        """The report as one JSON object, without secrets; `changes` replace fields."""
        return redact(json.dumps({**asdict(self), **changes}, default=str))
