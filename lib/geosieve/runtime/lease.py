"""A lock between runs: a file that says which run is at work, and until when it must have said so again.

A run that has died keeps others out only until its time is over. Clocks of drivers must agree to a fraction of that
time. A run that was so slow that another one took its place learns of it at the latest from `check`, before it commits.
"""

from __future__ import annotations

import json
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from py4j.protocol import Py4JJavaError

from geosieve.runtime.errors import RetryableError
from geosieve.runtime.files import Files
from geosieve.runtime.logs import logger


class Lease:
    """The lock of one run, made by `held`. `note`: what its holder has written down for later attempts of the run."""

    def __init__(self, files: Files, uri: str, run_id: str, seconds: float) -> None:
        self._files, self._uri, self._run_id, self._seconds = files, uri, run_id, seconds
        self._holder = uuid.uuid4().hex
        self._writing = threading.Lock()
        self.note: dict[str, Any] = {}

    def take(self) -> None:
        """RetryableError if another run holds it."""
        if self._files.create_new(self._uri, self._content()):
            return
        other = self._read()
        if other is not None and other["run_id"] == self._run_id:
            self.note = other["note"]  # an earlier attempt at this run, of which at most one can commit
        elif other is not None and other["until"] > time.time():
            raise self._lost(other)
        if other is not None:  # one that is gone meanwhile was released, or its holder is about to renew it
            self._files.delete(self._uri)
        if not self._files.create_new(self._uri, self._content()):
            raise self._lost(self._read())

    def keep(self, note: dict[str, Any]) -> None:
        """Write something down, for later attempts of this run."""
        self.note = note
        self.renew()

    def check(self) -> None:
        """RetryableError if another run has taken the lock."""
        with self._writing:  # except on S3, there is no file for a moment while it is renewed
            self._check()

    def renew(self) -> None:
        """Hold it for the same time from now on. RetryableError as for `check`."""
        with self._writing:
            self._check()
            self._files.write_text(self._uri, self._content())

    def release(self, *, done: bool) -> None:
        """Let the next run begin. Unless the run is `done`, the note stays for its next attempt."""
        with self._writing:
            other = self._read()
            if other is None or other["holder"] != self._holder:
                return
            if done:
                self._files.delete(self._uri)
            else:
                self._files.write_text(self._uri, self._content(over=True))

    def _check(self) -> None:
        other = self._read()
        if other is None or other["holder"] != self._holder:
            raise self._lost(other)

    def _content(self, *, over: bool = False) -> str:
        until = 0 if over else time.time() + self._seconds
        content = {"run_id": self._run_id, "holder": self._holder, "host": socket.gethostname(), "until": until}
        return json.dumps({**content, "note": self.note})

    def _read(self) -> dict[str, Any] | None:
        try:
            text = self._files.read_text(self._uri)
        except Py4JJavaError:
            if not self._files.exists(self._uri):
                return None
            text = self._files.read_text(self._uri)  # another process was about to renew it
        found: dict[str, Any] = json.loads(text)
        return found

    def _lost(self, other: dict[str, Any] | None) -> RetryableError:
        who = "another run" if other is None else f"run {other['run_id']} on {other['host']}"
        return RetryableError(
            f"{who} is at work here",
            where=self._uri,
            hint=f"let it finish; if it has died, its lock ends {self._seconds:.0f} s after its last sign of life",
        )


@contextmanager
def held(files: Files, uri: str, run_id: str, seconds: float) -> Iterator[Lease]:
    """Hold the lock at `uri` inside the block. RetryableError if another run does."""
    lease, over = Lease(files, uri, run_id, seconds), threading.Event()
    lease.take()

    def renew() -> None:
        while not over.wait(seconds / 4):
            try:
                lease.renew()
            except RetryableError as lost:
                logger().error(str(lost))
                return
            except Exception as failure:  # noqa: BLE001 - the store may answer again before the time is over
                logger().warning(f"the lock could not be renewed: {failure}"[:300])

    thread = threading.Thread(target=renew, daemon=True, name="lease")
    thread.start()
    done = False
    try:
        yield lease
        done = True
    finally:
        over.set()
        thread.join()
        try:
            lease.release(done=done)
        except Exception as failure:  # noqa: BLE001 - how the run ended says more, and the lock ends by itself
            logger().warning(f"the lock could not be released: {failure}"[:300])


def scan_lock(root: str, ranking: str) -> str:
    """Where the lock is that scans of archives hold while they write answers of a ranking below `root`."""
    return f"{root.rstrip('/')}/_locks/geolocate_archive/{ranking}.json"


def holder(files: Files, uri: str) -> str | None:
    """The run that holds the lock at `uri` at this moment, in words; None if nobody does. It takes nothing."""
    other = Lease(files, uri, "", 0)._read()
    return f"run {other['run_id']} on {other['host']}" if other is not None and other["until"] > time.time() else None
