"""The test's side of `job_server.py`: starts it, sends jobs, kills it."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pyspark
from tuned_spark import TUNED

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Outcome:
    """How a job ended; `printed` is all of its standard output, whose last line is the report."""

    exit_code: int | None
    report: dict[str, Any]
    printed: str


class Died(Exception):
    """The driver is gone before its job ended."""


class JobServer:
    """A driver process with one Spark session."""

    def __init__(
        self,
        folder: Path,
        master: str,
        settings: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.log = folder / "driver.log"
        options = ["--master", master, "--driver-memory", "1g", *TUNED]
        for key, value in (settings or {}).items():
            options += ["--conf", f"{key}={value}"]
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PYSPARK_", "SPARK_", "AWS_"))}
        home = {}
        if master.startswith("local-cluster"):
            home = {"SPARK_HOME": str(_spark_home(folder))}
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "job_server.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log.open("wb"),
            text=True,
            env={
                **inherited,
                "PYSPARK_SUBMIT_ARGS": shlex.join([*options, "pyspark-shell"]),
                **home,
                # Workers import held_partition.
                "PYTHONPATH": os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")])),
                **(environment or {}),
            },
        )

    def start(self, job: str, config: dict[str, Any], run_id: str, *options: str, die_at_mark: int = 0) -> None:
        """Send a job; `finish` waits for its end."""
        path = Path(tempfile.mkdtemp(dir=self._folder)) / f"{job}.yaml"
        path.write_text(json.dumps(config))
        arguments = ["--config", str(path), "--run-id", run_id, *options]
        request = {"job": job, "arguments": arguments, "die_at_mark": die_at_mark}
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()

    def finish(self) -> Outcome:
        """Wait for the job's end. Died if the process ends first."""
        assert self.process.stdout is not None
        lines: list[str] = []
        for line in self.process.stdout:
            if line.startswith('{"ready"'):
                continue
            if line.startswith('{"exit_code"'):
                return Outcome(json.loads(line)["exit_code"], json.loads(lines[-1]), "".join(lines))
            lines.append(line)
        raise Died(f"{''.join(lines)[-2000:]} exit status {self.process.wait()}; see {self.log}")

    def run(self, job: str, config: dict[str, Any], run_id: str, *options: str, die_at_mark: int = 0) -> Outcome:
        """A whole job."""
        self.start(job, config, run_id, *options, die_at_mark=die_at_mark)
        return self.finish()

    def kill(self) -> None:
        """SIGKILL to the driver and every process that it started."""
        family = [self.process.pid, *(child.pid for child in psutil.Process(self.process.pid).children(recursive=True))]
        for pid in family:
            _kill(pid)
        self.process.wait()

    def close(self) -> None:
        """End the session in order."""
        if self.process.poll() is None:
            assert self.process.stdin is not None
            self.process.stdin.close()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.kill()


def _kill(pid: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(pid).kill()


def _spark_home(folder: Path) -> Path:
    """A Spark home of links: a local cluster writes its work folders there and not into the installed package."""
    home = folder / "spark_home"
    home.mkdir(exist_ok=True)
    for entry in Path(pyspark.__file__).parent.iterdir():
        if entry.name != "work" and not (home / entry.name).exists():
            (home / entry.name).symlink_to(entry)
    return home
