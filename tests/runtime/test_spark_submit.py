"""Under `spark-submit`, which merges Python's streams: results on standard output, all else on standard error."""

from __future__ import annotations

import json
import os
import pty
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pyspark
import pytest

HOME = Path(pyspark.__file__).parent
HERE = Path(__file__).parent


def _command(folder: Path, *options: str, java: str = "") -> tuple[list[str], dict[str, str]]:
    """The command and its environment. `options`: of the job; `java`: of its JVM."""
    config = folder / "count.yaml"
    config.write_text("to: 3\n")
    paths = os.pathsep.join([str(HERE.parents[1] / "lib"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "SPARK_HOME": str(HOME), "PYSPARK_PYTHON": sys.executable, "PYTHONPATH": paths}
    # A session of this test process must not be taken for the one to be started.
    for name in ("PYSPARK_GATEWAY_PORT", "PYSPARK_GATEWAY_SECRET", "PYSPARK_SUBMIT_ARGS"):
        environment.pop(name, None)
    script = str(HERE / "counting_job.py")
    submit = [str(HOME / "bin" / "spark-submit"), "--master", "local[1]", "--driver-java-options", java]
    return [*submit, script, "--config", str(config), "--run-id", "r", *options], environment


def _run_on_terminal(command: list[str], environment: dict[str, str]) -> tuple[int, str, str]:
    """Exit code, standard output, and what came on the terminal that was standard error."""
    terminal, side = pty.openpty()
    shown: list[bytes] = []

    def read() -> None:
        try:
            while block := os.read(terminal, 65536):
                shown.append(block)
        except OSError:  # how Linux says that the other side is closed
            pass

    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=side, text=True)
    os.close(side)
    reader = threading.Thread(target=read)
    reader.start()
    output, _ = process.communicate(timeout=300)
    reader.join()
    os.close(terminal)
    return process.returncode, output, b"".join(shown).decode()


@pytest.fixture
def proxy() -> Iterator[socket.socket]:
    """Where a JVM with `through` would ask for another machine."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        yield listening


def through(proxy: socket.socket) -> str:
    port = proxy.getsockname()[1]
    return " ".join(f"-D{kind}.proxyHost=127.0.0.1 -D{kind}.proxyPort={port}" for kind in ("http", "https"))


def test_on_a_terminal_there_is_a_bar_and_standard_output_holds_the_report_alone(
    tmp_path: Path, proxy: socket.socket
) -> None:
    code, output, shown = _run_on_terminal(*_command(tmp_path, java=through(proxy)))
    assert code == 0, shown
    with pytest.raises(BlockingIOError):  # nobody is told of the job, neither by us nor by a library
        proxy.accept()
    (line,) = output.splitlines()
    assert (json.loads(line)["status"], json.loads(line)["rows_out"]) == ("done", 3)
    assert "/3 [" in shown and "count" in shown  # tqdm's count of tasks
    assert '"message": "stage ended"' in shown
    assert "a library's warning" in shown


@pytest.mark.parametrize(
    ("options", "code", "said"), [(["--set", "too=1"], 78, "did you mean 'to'?"), (["--cofnig", "x"], 78, "usage:")]
)
def test_errors_before_there_is_a_session_are_on_standard_error(
    tmp_path: Path, options: list[str], code: int, said: str
) -> None:
    command, environment = _command(tmp_path, *options)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == code
    assert said in done.stderr
    assert all(json.loads(line)["status"] == "failed" for line in done.stdout.splitlines())
