"""The lock between runs: who has it, who may take it over, and what it is while it is renewed."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from geosieve.runtime.errors import RetryableError
from geosieve.runtime.files import Files
from geosieve.runtime.lease import Lease, held, holder


@pytest.fixture
def files(spark: SparkSession) -> Files:
    return Files(spark)


def test_one_run_has_it_and_its_next_attempt_gets_the_note(files: Files, tmp_path: Path) -> None:
    uri = str(tmp_path / "lock.json")
    with held(files, uri, "first", 60) as lease:
        lease.keep({"parts": 3})
        assert str(holder(files, uri)).startswith("run first on ")
        with pytest.raises(RetryableError, match="run first on"), held(files, uri, "second", 60):
            pass
        lease.check()
        again = Lease(files, uri, "first", 60)
        again.take()
        assert again.note == {"parts": 3}
        with pytest.raises(RetryableError, match="run first on"):
            lease.check()  # of two attempts at one run, only the later one goes on
        again.release(done=True)
    assert not Path(uri).exists() and holder(files, uri) is None


def test_a_run_that_failed_or_died_keeps_nobody_out(files: Files, tmp_path: Path) -> None:
    uri = str(tmp_path / "lock.json")
    with pytest.raises(ZeroDivisionError), held(files, uri, "first", 60) as lease:
        lease.keep({"parts": 3})
        raise ZeroDivisionError
    assert holder(files, uri) is None and json.loads(Path(uri).read_text())["note"] == {"parts": 3}
    died = Lease(files, uri, "second", 0.2)
    died.take()
    time.sleep(0.3)
    with held(files, uri, "third", 60) as lease:
        assert lease.note == {}
        with pytest.raises(RetryableError, match="run third on"):
            died.renew()
        died.release(done=True)
        lease.check()  # it is still there


def test_it_is_not_lost_while_it_is_renewed(files: Files, tmp_path: Path) -> None:
    """On a disk, a file is replaced by deleting it first: for a moment nothing is there."""
    uri = str(tmp_path / "lock.json")
    lease, over = Lease(files, uri, "first", 60), threading.Event()
    lease.take()
    lost: list[Exception] = []

    def renew() -> None:
        while not over.is_set():
            try:
                lease.renew()
            except Exception as failure:  # noqa: BLE001 - told below
                lost.append(failure)

    thread = threading.Thread(target=renew)
    thread.start()
    try:
        for _ in range(200):
            lease.check()
    finally:
        over.set()
        thread.join()
    assert not lost
    lease.check()


def test_one_that_cannot_be_released_does_not_hide_how_the_run_ended(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*_: Any) -> None:
        raise OSError("the store is down")

    uri = str(tmp_path / "lock.json")
    with pytest.raises(ZeroDivisionError), held(files, uri, "first", 60):
        monkeypatch.setattr(files, "write_text", down)
        raise ZeroDivisionError
    assert holder(files, uri) is not None  # until its time is over
