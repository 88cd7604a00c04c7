"""Keeps standard error apart from standard output under `spark-submit`.

There, the driver's Python process is a child of the JVM. Both of its output streams go into one pipe, which the JVM
copies to its standard output. So messages on `sys.stderr` would appear among the results. They are therefore sent
through the JVM, whose standard error is the user's.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Any

from pyspark import SparkContext


class JvmStandardError(io.TextIOBase):
    """The JVM's standard error as a text stream of this process."""

    def __init__(self) -> None:
        SparkContext._ensure_initialized()  # connects to the running JVM; creates no SparkContext
        jvm: Any = SparkContext._jvm
        self._stream = jvm.System.err

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        """Write to the JVM's standard error or, if the JVM has ended, to this process's."""
        try:
            self._stream.print(text)
        except Exception:  # noqa: BLE001 - the JVM has ended; its last messages must not be lost
            sys.__stderr__.write(text)  # type: ignore[union-attr]
        return len(text)

    def isatty(self) -> bool:
        """Whether the JVM's standard error is a terminal."""
        try:
            return os.readlink(f"/proc/{os.getppid()}/fd/2").startswith(("/dev/pts/", "/dev/tty", "/dev/console"))
        except OSError:  # no /proc, or a parent of another user
            return False


@contextmanager
def standard_error() -> Iterator[None]:
    """Within the block, `sys.stderr` reaches the user's standard error, also under `spark-submit`."""
    if "PYSPARK_GATEWAY_PORT" in os.environ and os.path.sameopenfile(1, 2):
        with redirect_stderr(JvmStandardError()):
            yield
    else:
        yield
