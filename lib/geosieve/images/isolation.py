"""Decoding and reading headers in a child process, one image at a time, so that a poisoned image costs one image.

A decoder that crashes ends its process: in a Spark task, the Python worker. One that hangs is ended by an alarm.
The task fails, and Spark tries it again. Only then, in a second attempt, does each image go through a child process,
and the culprit becomes a refusal. The first attempt pays nothing for this but two system calls per image.
"""

from __future__ import annotations

import json
import os
import select
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import IO, ParamSpec, Protocol, TypeVar

import numpy as np
from pyspark import TaskContext

from geosieve.images.decode import RGB, decode
from geosieve.images.headers import MAX_PIXELS, ImageHeader, Refusal, read_header

SECONDS = 30.0
"""Time that an image may take to decode in a child process. 200 megapixels take about ten."""

_LENGTH = struct.Struct("<q")
_AT_ONCE = 1 << 20
_START_SECONDS = 300.0  # for the child's imports, on a busy machine


P = ParamSpec("P")
T = TypeVar("T")

HeaderReader = Callable[[bytes, int], ImageHeader | Refusal]
"""A function like `read_header`."""


class Decoder(Protocol):
    """A function like `decode`: (bytes, shorter side, limit of pixels, longer side) to pixels or a refusal."""

    def __call__(
        self, content: bytes, side: int | None = None, pixels: int = MAX_PIXELS, longest: int | None = None
    ) -> RGB | Refusal: ...


@contextmanager
def decoder(seconds: float = SECONDS) -> Iterator[Decoder]:
    """The decoder for a Spark task: `decode` itself in the first attempt, in a child process in later ones.

    In the first attempt, an image that takes longer than `seconds` ends the worker.
    """
    context = TaskContext.get()
    if context is None:
        yield decode
    elif context.attemptNumber() == 0:
        yield _within(decode, seconds)
    else:
        with isolated(seconds) as found:
            yield found


@contextmanager
def header_reader(seconds: float = SECONDS) -> Iterator[HeaderReader]:
    """The reader of headers for a Spark task, guarded like `decoder`: `read_header`, in later attempts after a trial.

    The trial reads the header in a child process. If that survives, the header is read here.
    """
    context = TaskContext.get()
    if context is None:
        yield read_header
    elif context.attemptNumber() == 0:
        yield _within(read_header, seconds)
    else:
        with isolated(seconds, f"{__name__}:{_try_header.__name__}") as try_header:

            def found(content: bytes, pixels: int = MAX_PIXELS) -> ImageHeader | Refusal:
                tried = try_header(content, None, pixels)
                return tried if isinstance(tried, Refusal) else read_header(content, pixels)

            yield found


def _try_header(content: bytes, side: int | None, pixels: int, longest: int | None) -> RGB | Refusal:
    found = read_header(content, pixels)
    return found if isinstance(found, Refusal) else np.empty((0, 0, 3), np.uint8)


def _within(function: Callable[P, T], seconds: float) -> Callable[P, T]:
    def found(*arguments: P.args, **options: P.kwargs) -> T:
        # Nothing handles this signal, so it ends the process, even one whose decoder holds Python's lock.
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            return function(*arguments, **options)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    return found


@contextmanager
def isolated(seconds: float = SECONDS, function: str = f"{decode.__module__}:{decode.__name__}") -> Iterator[Decoder]:
    """`function` (module:name), called in a child process.

    An image that ends the process is refused as decoder_crashed, one that takes longer than `seconds` as
    decoder_timeout. The next image gets a new process.
    """
    child = _Child(function)

    def found(
        content: bytes, side: int | None = None, pixels: int = MAX_PIXELS, longest: int | None = None
    ) -> RGB | Refusal:
        return child.decode(content, {"side": side, "pixels": pixels, "longest": longest}, seconds)

    try:
        yield found
    finally:
        child.stop()


class _Child:
    """The child process, started when it is needed."""

    def __init__(self, function: str) -> None:
        self._function = function
        self._process: subprocess.Popen[bytes] | None = None

    def decode(self, content: bytes, options: dict[str, int | None], seconds: float) -> RGB | Refusal:
        process = self._process or self._start()
        end = time.monotonic() + seconds
        try:
            _send(process, json.dumps(options).encode(), end)
            _send(process, content, end)
            answer = json.loads(_receive(process, end))
            if "error_class" in answer:
                return Refusal(**answer)
            pixels = np.frombuffer(_receive(process, end), np.uint8)
            return pixels.reshape(answer["shape"])
        except TimeoutError:
            self.stop()
            return Refusal("decoder_timeout", f"it was not decoded within {seconds:g} s")
        except (EOFError, BrokenPipeError):
            code = process.wait()
            self.stop()
            ended = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            return Refusal("decoder_crashed", f"the decoder ended with {ended}")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", __name__, self._function]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, bufsize=0
        )
        _receive(self._process, time.monotonic() + _START_SECONDS)  # an empty answer: imports are over
        return self._process


def _send(process: subprocess.Popen[bytes], content: bytes, end: float) -> None:
    assert process.stdin is not None
    requests = process.stdin.fileno()
    os.set_blocking(requests, False)
    rest = memoryview(_LENGTH.pack(len(content)) + content)
    while rest:
        _, ready, _ = select.select([], [requests], [], max(0.0, end - time.monotonic()))
        if not ready:
            raise TimeoutError
        rest = rest[os.write(requests, rest[:_AT_ONCE]) :]


def _receive(process: subprocess.Popen[bytes], end: float) -> bytes:
    assert process.stdout is not None
    answers = process.stdout.fileno()

    def read(length: int) -> bytes:
        parts = bytearray()
        while len(parts) < length:
            ready, _, _ = select.select([answers], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                raise TimeoutError
            part = os.read(answers, min(length - len(parts), _AT_ONCE))
            if not part:
                raise EOFError
            parts += part
        return bytes(parts)

    return read(_LENGTH.unpack(read(_LENGTH.size))[0])


def _serve(function: Decoder, requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer requests until there are no more: the loop of the child process."""

    def read() -> bytes | None:
        head = requests.read(_LENGTH.size)
        return requests.read(_LENGTH.unpack(head)[0]) if len(head) == _LENGTH.size else None

    def write(content: bytes) -> None:
        answers.write(_LENGTH.pack(len(content)))
        answers.write(content)
        answers.flush()

    write(b"")
    while (options := read()) is not None and (content := read()) is not None:
        found = function(content, **json.loads(options))
        if isinstance(found, Refusal):
            write(json.dumps({"error_class": found.error_class, "message": found.message}).encode())
        else:
            write(json.dumps({"shape": found.shape}).encode())
            write(found.tobytes())


def _main(function: str) -> None:
    module, _, name = function.partition(":")
    # Whatever a decoder prints must not come among the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    _serve(getattr(import_module(module), name), sys.stdin.buffer, answers)


if __name__ == "__main__":
    _main(sys.argv[1])
