"""Decoding in a child process: what crashes or hangs is refused, and all others are decoded."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from fabricated_images import image
from pyspark import TaskContext

from geosieve.images.decode import decode
from geosieve.images.headers import MAX_PIXELS, Refusal, read_header
from geosieve.images.isolation import decoder, header_reader, isolated

HOSTILE = "hostile_decoder:decode"


def test_pixels_and_refusals_are_those_of_the_decoder_itself() -> None:
    files = [image(size=(90, 60), color=9), image("PNG", size=(40, 70)), b"<html>", b"", image()[:60]]
    with isolated() as found:
        for content in files:
            for side in (None, 30):
                expected, got = decode(content, side), found(content, side)
                assert type(expected) is type(got)
                assert np.array_equal(got, expected) if isinstance(got, np.ndarray) else got == expected


def test_a_crash_and_a_hang_cost_one_image_each() -> None:
    with isolated(seconds=2, function=HOSTILE) as found:
        outcomes = [found(content, 5) for content in (b"a", b"crash", b"bb", b"hang", b"exit", b"refuse", b"ccc")]
    classes = [one.error_class if isinstance(one, Refusal) else int(one[0, 0, 0]) for one in outcomes]
    assert classes == [1, "decoder_crashed", 2, "decoder_timeout", "decoder_crashed", "broken_image", 3]
    assert isinstance(outcomes[1], Refusal) and "SIGSEGV" in outcomes[1].message
    assert isinstance(outcomes[4], Refusal) and "exit code 3" in outcomes[4].message


def test_files_larger_than_a_pipe_pass() -> None:
    with isolated(function=HOSTILE) as found:
        pixels = found(bytes(5_000_001), 400_000)
    assert isinstance(pixels, np.ndarray) and pixels.shape == (2, 400_000, 3) and (pixels == 5_000_001 % 256).all()


def test_a_decoder_that_hangs_is_given_up_in_time() -> None:
    start = time.monotonic()
    with isolated(seconds=0.5, function=HOSTILE) as found:
        assert isinstance(found(b"hang"), Refusal)
    assert time.monotonic() - start < 20


def test_outside_of_a_retried_task_nothing_is_isolated() -> None:
    with decoder() as found:
        assert found is decode


def test_a_header_that_crashes_its_reader_costs_one_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Every Python process that starts with this folder on its path has a reader that crashes on a mark.
    (tmp_path / "sitecustomize.py").write_text(
        "import os\n"
        "from geosieve.images import headers\n"
        "own = headers.open_image\n"
        "headers.open_image = lambda content, most: os.abort() if content[-5:] == b'CRASH' else own(content, most)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(TaskContext, "get", lambda: SimpleNamespace(attemptNumber=lambda: 1))
    files = [image(size=(90, 60)), image("PNG", size=(40, 70)) + b"CRASH", b"<html>", image("PNG", size=(40, 70))]
    with header_reader() as found:
        outcomes = [found(content, MAX_PIXELS) for content in files]
    assert isinstance(outcomes[1], Refusal) and outcomes[1].error_class == "decoder_crashed"
    assert [outcomes[k] for k in (0, 2, 3)] == [read_header(files[k]) for k in (0, 2, 3)]


@pytest.mark.parametrize("content", [b"crash", b"hang"])
def test_no_process_is_left_over(content: bytes) -> None:
    import psutil

    before = set(psutil.Process().children())
    with isolated(seconds=1, function=HOSTILE) as found:
        found(content)
        found(b"x")
    assert set(psutil.Process().children()) <= before
