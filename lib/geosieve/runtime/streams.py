"""Where standard error is: `spark-submit` merges that of the driver's Python into its own standard output.

Python runs there as a child of the JVM, with one pipe for both streams, which the JVM copies to its standard output.
What is written to `sys.stderr` would stand among results. So it is handed to the JVM, which has the user's.
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
        SparkContext._ensure_initialized()  # connects to the JVM that is there; makes no context
        jvm: Any = SparkContext._jvm
        self._stream = jvm.System.err

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        try:
            self._stream.print(text)
        except Exception:  # noqa: BLE001 - the JVM has ended: what it was told last must not be lost with it
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
    """While it lasts, `sys.stderr` reaches the user's standard error also under `spark-submit`."""
    if "PYSPARK_GATEWAY_PORT" in os.environ and os.path.sameopenfile(1, 2):
        with redirect_stderr(JvmStandardError()):
            yield
    else:
        yield
