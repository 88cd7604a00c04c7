"""List a million photos on a local disk, against plain os.scandir with sizes: seconds, and driver memory per name.

The photos are 1,000 folders of 1,000 names in a temporary folder, hard links to files of one byte.
"""

from __future__ import annotations

import gc
import os
import resource
import sys
import tempfile
import tracemalloc
from pathlib import Path
from time import perf_counter

from benchmarks.timing import bar

FOLDERS, NAMES = 1_000, 1_000
BAR_S, BAR_BYTES = 60.0, 64.0


def make(root: Path, ending: str, folders: int) -> None:
    """Make folders of 1,000 files each under `root`. The files of a folder are hard links to one file of one byte."""
    for k in range(folders):
        folder = root / f"{k:04d}"
        folder.mkdir(parents=True)
        first = folder / f"IMG_0000.{ending}"
        first.write_bytes(b"x")
        for name in range(1, NAMES):
            os.link(first, folder / f"IMG_{name:04d}.{ending}")


def walk(root: Path) -> int:
    """The least work of a listing: visit every name and get its size. Return the number of nonempty files."""
    files, pending = 0, [str(root)]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.is_dir():
                    pending.append(entry.path)
                else:
                    files += entry.stat().st_size > 0
    return files


def main() -> int:
    """Return exit code 1 if a bar is missed."""
    from geosieve.images.photo_rows import PhotoLimits
    from geosieve.images.photos import list_photos, photo_folder
    from geosieve.runtime.session import spark_session

    os.environ.setdefault("PYSPARK_SUBMIT_ARGS", "--master local[2] --driver-memory 2g pyspark-shell")
    with tempfile.TemporaryDirectory() as work, spark_session("list_photos", local=False) as spark:
        photos, texts = Path(work) / "photos", Path(work) / "texts"
        make(photos, "jpg", FOLDERS)
        make(texts, "txt", 50)
        n = FOLDERS * NAMES
        walk(photos)  # fill the kernel's cache for both
        start = perf_counter()
        assert walk(photos) == n
        bare_s = perf_counter() - start
        start = perf_counter()
        listing = list_photos(spark, photo_folder(spark, str(photos)), PhotoLimits())
        listed_s = perf_counter() - start
        assert (listing.files, listing.refused) == (n, [])
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        print(f"  {n:,} names: os.scandir with sizes {bare_s:.1f} s, list_photos {listed_s:.1f} s, ", end="")
        print(f"ratio {listed_s / bare_s:.1f}; peak of Python {peak} MiB")
        held = {}
        for name, folder in (("photos", photos), ("texts", texts)):
            chosen = folder if name == "texts" else folder / "0000"
            gc.collect()
            tracemalloc.start()
            listing = list_photos(spark, photo_folder(spark, str(chosen)), PhotoLimits())
            gc.collect()
            held[name] = tracemalloc.get_traced_memory()[0]
            tracemalloc.stop()
        refused = 50 * NAMES
        print(f"  held after listing: {held['photos']:,} bytes of {NAMES:,} photos; ", end="")
        print(f"{held['texts'] / refused:.0f} bytes of each of {refused:,} refused names")
        met = [
            bar("listing of a million names", listed_s, BAR_S, "s"),
            bar("held of a photo's name", held["photos"] / NAMES, BAR_BYTES, "bytes"),
        ]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
