"""Memory of strips, chips and pairs: it grows neither with a strip's pixels nor with the number of chips.

`prepare_strips`: the most memory of a worker for synthetic strips of four bands, after a small one that has filled
caches. The largest is compared with one of a third of its pixels, which has more tiles than a worker keeps open; the
smallest has fewer. `cut_chips` and `build_pairs`, 1,000 and 20,000 chips of
64 pixels: the most that the driver held while the job ran. Of its Python process that is what tracemalloc and Arrow
know of. Of its JVM it is the heap after garbage collections, which are asked for all the time. Tasks run in two
executors of their own (local-cluster). What remains allocated after the job is told per further chip.
"""

from __future__ import annotations

import os
import sys
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import pyarrow as pa
import pyspark
import rasterio
from affine import Affine
from PIL import Image
from pyproj import Transformer
from pyspark.sql import SparkSession

from benchmarks import FOLDER
from benchmarks.chips import job
from benchmarks.driver_memory import held
from benchmarks.strips import FEW as SMALL
from benchmarks.strips import Peak, fabricate
from benchmarks.strips import job as prepare
from benchmarks.timing import bar
from geosieve.overhead.chips.config import ChipsConfig
from geosieve.overhead.chips.job import cut_chips
from geosieve.overhead.pairs.build import build_pairs
from geosieve.overhead.pairs.config import PairsConfig
from geosieve.overhead.strips.config import StripsConfig
from geosieve.overhead.strips.prepare import prepare_strips
from geosieve.runtime.session import spark_session
from geosieve.tables.schemas import IMAGES

SIDES = (6_000, 12_000, 20_000)
NUMBERS = (1_000, 20_000)
WORKER_BAR, DRIVER_BAR = 1.15, 1.15
EXTENT_M, STEP, LEFT, TOP, EPSG = 2_000.0, 1.0, 500_000.0, 5_000_000.0, "EPSG:32633"
COLUMNS = {"image_id": "id", "lat": "lat", "lon": "lon"}


class Held:
    """The most that this process's Python objects and its JVM's heap hold, in bytes, looked at again and again."""

    def __init__(self, spark: SparkSession) -> None:
        self._spark = spark
        self.python = self.jvm = 0

    def __enter__(self) -> Held:
        tracemalloc.reset_peak()
        self._over = Event()
        self._thread = Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self.python = max(self.python, tracemalloc.get_traced_memory()[1])

    def _watch(self) -> None:
        jvm: Any = self._spark._jvm
        pools = [
            pool
            for pool in jvm.java.lang.management.ManagementFactory.getMemoryPoolMXBeans()
            if pool.getType().name() == "HEAP"
        ]
        while not self._over.wait(0.3):
            jvm.System.gc()
            # As each collection left it: what was allocated since would be garbage in part.
            self.jvm = max(self.jvm, sum(pool.getCollectionUsage().getUsed() for pool in pools))
            self.python = max(self.python, tracemalloc.get_traced_memory()[0] + pa.total_allocated_bytes())


def strips(work: Path) -> bool:
    """Whether a worker holds about as much for a strip of almost three times the pixels."""
    prepare(work, fabricate(work / "small.tif", SMALL), "small")
    peaks = []
    for side in SIDES:
        strip = fabricate(work / f"{side}.tif", side)
        with Peak() as peak:
            prepare(work, strip, str(side))
        strip.unlink()
        peaks.append(peak.mb)
        print(f"  a worker of prepare_strips, {side:,} x {side:,} pixels: {peak.mb:.0f} MB", flush=True)
    return bar("memory of a worker for a strip of almost three times the pixels", peaks[2] / peaks[1], WORKER_BAR)


def ground(work: Path) -> None:
    """A small strip, prepared."""
    side = round(EXTENT_M / STEP)
    profile = {"driver": "GTiff", "count": 3, "height": side, "width": side, "dtype": "uint8", "crs": EPSG}
    values = np.random.default_rng(0).integers(1, 255, (3, side // 8, side // 8), np.uint8).repeat(8, 1).repeat(8, 2)
    (work / "ground").mkdir()
    with rasterio.open(work / "ground/g.tif", "w", **profile, transform=Affine(STEP, 0, LEFT, 0, -STEP, TOP)) as file:
        file.write(values)
    config = {"strips": {"name": "ground", "uri": str(work / "ground"), "resolution_m": STEP, "ranges": [[0, 255]]}}
    job(work, "prepare_strips", StripsConfig, prepare_strips, config, "r")


def photos(work: Path, number: int) -> dict[str, Any]:
    """Rows of `images` for photos in the strip; a hundred different files. Returns the list of their positions."""
    from committed import commit, image  # of the tests, which are no package

    name, folder = f"n{number}", work / f"photos{number}"
    rng = np.random.default_rng(number)
    at = rng.uniform(100, EXTENT_M - 100, (number, 2))
    lon, lat = Transformer.from_crs(EPSG, "EPSG:4326", always_xy=True).transform(LEFT + at[:, 0], TOP - at[:, 1])
    listed = work / f"{name}.csv"
    listed.write_text("\n".join(["id,lat,lon", *(f"{n},{lat[n]!r},{lon[n]!r}" for n in range(number))]))
    folder.mkdir()
    rows = []
    for n in range(number):
        path = folder / f"{n}.jpg"
        if n < 100:
            Image.fromarray(rng.integers(0, 256, (48, 64, 3), np.uint8)).save(path)
        else:
            os.link(folder / f"{n % 100}.jpg", path)
        rows.append(image(str(n), lat[n], lon[n], str(path), path.read_bytes()))
    commit(work / "tables", IMAGES, {"source": name, "run_id": "r"}, rows)
    return {"name": name, "format": "csv", "uri": str(listed), "columns": COLUMNS}


def chips_of(work: Path, source: dict[str, Any], run_id: str) -> None:
    """Cut a chip at each position of a list."""
    rasters = {"root": str(work / "tables"), "strips": ["ground"]}
    views = [{"size_px": 64, "resolution_m": STEP}]
    config = {"name": source["name"], "positions": source, "rasters": rasters, "views": views}
    job(work, "cut_chips", ChipsConfig, cut_chips, config, run_id)


def pairs_of(work: Path, source: dict[str, Any], run_id: str) -> None:
    """Make a pair of each photo and its chip."""
    root = str(work / "tables")
    chips = {"root": root, "name": source["name"]}
    config = {"name": source["name"], "images": {"root": root, "sources": [source["name"]]}, "chips": chips}
    job(work, "build_pairs", PairsConfig, build_pairs, {**config, "licences": "any"}, run_id)


def driver(spark: SparkSession, work: Path) -> list[bool]:
    """Whether the driver holds about as much for twenty times the chips."""
    ground(work)
    sources = [photos(work, number) for number in NUMBERS]
    steps: dict[str, Callable[[Path, dict[str, Any], str], None]] = {"cut_chips": chips_of, "build_pairs": pairs_of}
    met = []
    for name, step in steps.items():
        step(work, sources[0], "first")  # loads classes and fills caches
        most, left = [], []
        for source in sources:
            before = held(spark)
            with Held(spark) as peak:
                step(work, source, "r")
            left.append([after - start for after, start in zip(held(spark), before, strict=True)])
            most.append([peak.python / 1e6, peak.jvm / 1e6])
        for k, place in enumerate(("Python", "the JVM's heap")):
            each = (left[1][k] - left[0][k]) / (NUMBERS[1] - NUMBERS[0])
            print(f"  {name}, {place}: {most[0][k]:.1f} MB for {NUMBERS[0]:,} chips, {most[1][k]:.1f} MB for "
                  f"{NUMBERS[1]:,}; left afterwards: {each:.0f} bytes per further chip", flush=True)  # fmt: skip
            met.append(bar(f"{name}: {place} for {NUMBERS[1] // NUMBERS[0]} times the chips", most[1][k] / most[0][k],
                           DRIVER_BAR))  # fmt: skip
    return met


def spark_home(folder: Path) -> Path:
    """A Spark home of links: a local cluster writes its work folders there and not into the installed package."""
    folder.mkdir()
    for entry in Path(pyspark.__file__).parent.iterdir():
        if entry.name != "work":
            (folder / entry.name).symlink_to(entry)
    return folder


def main() -> int:
    """Return exit code 1 if a bar is missed."""
    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    master = "local-cluster[2,1,2048]"
    os.environ["PYSPARK_SUBMIT_ARGS"] = f"--master {master} --executor-memory 2g --driver-memory 1g pyspark-shell"
    with tempfile.TemporaryDirectory(dir=FOLDER.resolve()) as folder:
        work = Path(folder)
        os.environ["SPARK_HOME"] = str(spark_home(work / "spark"))
        with spark_session("overhead_memory", local=False) as spark:
            met = [strips(work)]
            tracemalloc.start()
            met += driver(spark, work)
            tracemalloc.stop()
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
