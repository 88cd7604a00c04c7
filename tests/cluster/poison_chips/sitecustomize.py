"""Kills an executor while it makes a chip or a small photo. Every Python process imports this.

ARMED names a file: while it exists, the next executor that encodes a picture is killed, and the file is deleted.
"""

import os
from pathlib import Path

import psutil
import simplejpeg
from isal import isal_zlib
from PIL import Image

_ARMED = Path(os.environ["ARMED"])


def _poisoned(encode):
    def encoded(*args, **options):
        try:
            _ARMED.unlink()
        except OSError:
            return encode(*args, **options)
        next(process for process in psutil.Process().parents() if "java" in process.name()).kill()

    return encoded


Image.Image.save = _poisoned(Image.Image.save)
simplejpeg.encode_jpeg = _poisoned(simplejpeg.encode_jpeg)
isal_zlib.compress = _poisoned(isal_zlib.compress)  # of PNG
