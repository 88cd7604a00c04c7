"""Kills an executor while it makes a chip. Every Python process imports this.

ARMED names a file: while it exists, the next executor that begins a PNG file is killed, and the file is deleted.
"""

import os
from pathlib import Path

import psutil
from PIL import Image

_ARMED = Path(os.environ["ARMED"])
_save = Image.Image.save


def _poisoned(self, *args, **options):
    try:
        _ARMED.unlink()
    except OSError:
        return _save(self, *args, **options)
    next(process for process in psutil.Process().parents() if "java" in process.name()).kill()


Image.Image.save = _poisoned
