"""Runs the real job files one after another in one Spark session, as lines on standard input ask for it.

A session takes longer to start than a small job to run. A request is a JSON object: `job`, `arguments`, and
`die_at_mark` n to have this process killed in place of writing the n-th `_SUCCESS`. After the job's own output comes
a line with its exit code.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import sys
from pathlib import Path
from typing import Any

import geosieve.partitions.kinds
from geosieve.runtime.session import spark_session
from geosieve.tables.publish import Publication

HERE = Path(__file__).parent
JOBS = HERE.parents[1] / "jobs"


def _die_at_mark(number: int) -> None:
    mark, marks = Publication._mark, list[str]()

    def counted(self: Publication, uri: str, manifest: dict[str, Any]) -> None:
        marks.append(uri)
        if len(marks) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        mark(self, uri, manifest)

    Publication._mark = counted  # type: ignore[method-assign]


def main() -> None:
    geosieve.partitions.kinds.__path__.append(str(HERE / "kinds"))
    with spark_session("geosieve test jobs", local=False):
        print(json.dumps({"ready": os.getpid()}), flush=True)
        for line in sys.stdin:
            request = json.loads(line)
            if request.get("die_at_mark"):
                _die_at_mark(request["die_at_mark"])
            sys.argv = [request["job"], *request["arguments"]]
            code: object = None
            try:
                runpy.run_path(str(JOBS / f"{request['job']}.py"), run_name="__main__")
            except SystemExit as end:
                code = end.code
            print(json.dumps({"exit_code": code}), flush=True)


if __name__ == "__main__":
    main()
