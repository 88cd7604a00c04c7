"""What workers hold at most while they prepare a strip does not grow with the strip."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import psutil
import rasterio
from fabricated_strips import texture
from job_client import JobServer
from rasterio.transform import Affine
from rasterio.windows import Window

from geosieve.runtime.errors import EXIT_DONE
from geosieve.runtime.session import DAEMON

STEP = 600


def repeated(path: Path, size: int) -> Path:
    """A strip of `size` × `size` pixels of 8 bits, which are written piece by piece."""
    path.parent.mkdir()
    piece = texture(3, STEP, STEP, "uint8", 255)
    place = {"crs": "EPSG:32633", "transform": Affine(0.5, 0, 5e5, 0, -0.5, 5e6)}
    layout = {"tiled": True, "compress": "zstd", "zstd_level": 1}
    with rasterio.open(
        path, "w", driver="GTiff", count=3, height=size, width=size, dtype="uint8", **place, **layout
    ) as file:
        for top in range(0, size, STEP):
            row = np.tile(np.roll(piece, top // STEP, axis=2), (1, 1, size // STEP))
            file.write(row, window=Window(0, top, size, STEP))
    return path


@contextmanager
def watched(driver: JobServer) -> Iterator[list[float]]:
    """MB that each look found in the largest of the driver's Python workers."""
    over, seen = threading.Event(), list[float]()
    parent = psutil.Process(driver.process.pid)

    def watch() -> None:
        while not over.wait(0.02):
            with suppress(psutil.NoSuchProcess):
                workers = [p for p in parent.children(recursive=True) if DAEMON in p.cmdline()]
                seen.extend([max(worker.memory_info().rss for worker in workers) / 1e6] if workers else [])

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def test_a_worker_holds_no_more_for_a_strip_of_four_times_the_pixels(tmp_path: Path) -> None:
    driver = JobServer(tmp_path / "server", "local[2]")
    peaks = {}
    try:
        for size in (6000, 12000):  # the first fills the cache of blocks, too
            strip = repeated(tmp_path / f"in{size}/s.tif", size)
            output = {"resolution_m": 1.4, "compression": "zstd"}
            config = {"strips": {"name": "s", "uri": str(strip), **output}, "output": str(tmp_path / f"out{size}")}
            with watched(driver) as seen:
                outcome = driver.run("prepare_strips", config, "r")
            assert outcome.exit_code == EXIT_DONE, outcome.report["error"]
            peaks[size] = max(seen)
    finally:
        driver.close()
    assert peaks[12000] <= 1.15 * peaks[6000], peaks
