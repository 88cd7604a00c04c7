"""Makes the decoder crash, hang or kill on images that end in a mark. Every Python process imports this at its start.

The executor is killed only while the file exists that the environment variable ARMED names; this removes it.
"""

import os
import signal
import time

import psutil

from geosieve.images import decode

_decode = decode._decode


def _poisoned(content, *arguments):
    if content.endswith(b"CRASH"):
        os.kill(os.getpid(), signal.SIGSEGV)
    if content.endswith(b"HANG"):
        time.sleep(3_600)
    if content.endswith(b"EXECUTOR") and _disarm():
        next(process for process in psutil.Process().parents() if "java" in process.name()).kill()
    return _decode(content, *arguments)


def _disarm():
    try:
        os.remove(os.environ.get("ARMED", ""))
    except OSError:
        return False
    return True


decode._decode = _poisoned
