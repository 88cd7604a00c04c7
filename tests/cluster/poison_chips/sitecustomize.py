"""Kills an executor while it makes a chip. Every Python process imports this.

ARMED names a file: while it exists, the next executor that compresses a PNG file is killed, and the file is deleted.
"""

import os
from pathlib import Path

import psutil
from isal import isal_zlib

_ARMED = Path(os.environ["ARMED"])
_compress = isal_zlib.compress


def _poisoned(*args):
    try:
        _ARMED.unlink()
    except OSError:
        return _compress(*args)
    next(process for process in psutil.Process().parents() if "java" in process.name()).kill()


isal_zlib.compress = _poisoned
