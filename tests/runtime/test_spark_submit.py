"""Under `spark-submit`, which merges Python's streams: results on standard output, all else on standard error."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import threading
from pathlib import Path

import pyspark
import pytest

HOME = Path(pyspark.__file__).parent
HERE = Path(__file__).parent


def _command(folder: Path, *options: str) -> tuple[list[str], dict[str, str]]:
    config = folder / "count.yaml"
    config.write_text("to: 3\n")
    paths = os.pathsep.join([str(HERE.parents[1] / "lib"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "SPARK_HOME": str(HOME), "PYSPARK_PYTHON": sys.executable, "PYTHONPATH": paths}
    # A session of this test process must not be taken for the one to be started.
    for name in ("PYSPARK_GATEWAY_PORT", "PYSPARK_GATEWAY_SECRET", "PYSPARK_SUBMIT_ARGS"):
        environment.pop(name, None)
    script = str(HERE / "counting_job.py")
    submit = [str(HOME / "bin" / "spark-submit"), "--master", "local[1]", script, "--config", str(config)]
    return [*submit, "--run-id", "r", *options], environment


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


def test_on_a_terminal_there_is_a_bar_and_standard_output_holds_the_report_alone(tmp_path: Path) -> None:
    code, output, shown = _run_on_terminal(*_command(tmp_path))
    assert code == 0, shown
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
