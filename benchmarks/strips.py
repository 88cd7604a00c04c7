"""`prepare_strips` of a strip of 6,000 x 6,000 x 4 bands against gdal_translate and gdalwarp, all threads; two cores.

The strip is synthetic, 16 bits, 0.3 m, in the UTM zone beside its own. The programs are those of Debian's gdal-bin.
They are given the levels that the job found, which spares them a reading, and write three bands of 8 bits and alpha,
tiled and compressed as the job's file, but without overviews. Of the job, its stages `tiles` and `assemble` count, with
overviews; the stage `levels`, whose work the programs do not have, is told beside. Before, the same JVM and workers
have prepared a small strip. By default, gdalwarp may place pixels wrongly by an eighth of a pixel, and where a strip
is turned against the grid, its bilinear kernel becomes wider in the parts that it divides the work into. `-et 0` and
scales of 1 make it interpolate as PROJ says. Shares of equal pixels are told for both; the bar is on the exact ones.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from statistics import median
from threading import Event, Thread
from time import perf_counter
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq
import rasterio
from affine import Affine
from rasterio.windows import Window

from benchmarks import FOLDER
from benchmarks.timing import REPEATS, bar

SIDE, FEW, PIECE, BANDS = 6_000, 1_000, 1_000, 4
EXACTLY = ("-et", "0", "-wo", "XSCALE=1", "-wo", "YSCALE=1")
BAR, PIXELS_BAR = 0.8, 99.9  # times, percent


def fabricate(path: Path, side: int) -> Path:
    """Write a strip of smooth ground with noise and edges."""
    rng = np.random.default_rng(0)
    profile = {"driver": "GTiff", "count": BANDS, "height": side, "width": side, "dtype": "uint16", "tiled": True}
    place = {"crs": "EPSG:32634", "transform": Affine(0.3, 0, 200_000, 0, -0.3, 5_000_000)}  # its own zone is 33
    rows, columns = np.mgrid[:PIECE, :PIECE] * (2 * np.pi / PIECE)
    with rasterio.open(
        path, "w", **profile, **place, blockxsize=256, blockysize=256, compress="zstd", zstd_level=1
    ) as file:
        for top in range(0, side, PIECE):
            for left in range(0, side, PIECE):
                waves = [np.sin((3 + b) * rows + b) * np.cos((5 + top // PIECE) * columns) for b in range(BANDS)]
                edges = 0.5 * (np.sin(20 * rows) * np.sin(24 * columns) > 0)
                noise = 0.03 * rng.normal(size=(BANDS, PIECE, PIECE))
                values = np.clip(900 + 500 * (np.stack(waves) + edges + noise), 1, 2047).astype(np.uint16)
                file.write(values, window=Window(left, top, PIECE, PIECE))
    return path


def job(work: Path, strip: Path, run_id: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run the job in this process. Return its report and the strip's row. SystemExit if it fails."""
    from geosieve.job.main import main as run
    from geosieve.overhead.strips.config import StripsConfig
    from geosieve.overhead.strips.prepare import prepare_strips

    path = work / "prepare_strips.yaml"
    path.write_text(json.dumps({"strips": {"name": "s", "uri": str(strip)}, "output": str(work / "tables")}))
    with redirect_stdout(io.StringIO()) as printed:
        code = run("prepare_strips", StripsConfig, prepare_strips, ["--config", str(path), "--run-id", run_id])
    report: dict[str, Any] = json.loads(printed.getvalue().splitlines()[-1])
    if code:
        raise SystemExit(f"prepare_strips failed: {report['error']}")
    leaf = work / "tables" / "strips" / "source=s" / f"run_id={run_id}"
    return report, pq.read_table(leaf, partitioning=None).to_pylist()[0]


def programs(work: Path, strip: Path, row: dict[str, Any], *more: str) -> Path:
    """gdal_translate and gdalwarp with the job's levels and grid. Returns their file."""
    scaled, warped = work / "scaled.tif", work / "warped.tif"
    levels = [(n, level["band"], level["black"], level["white"]) for n, level in enumerate(row["levels"], 1)]
    bands = [text for _, band, _, _ in levels for text in ("-b", str(band))]
    scale = [text for n, _, *pair in levels for text in (f"-scale_{n}", *map(repr, pair), "0", "255")]
    tiled = ["-co", "TILED=YES"]
    subprocess.run(
        [
            "gdal_translate",
            "-q",
            "-ot",
            "Byte",
            "-colorinterp",
            "red,green,blue",
            *bands,
            *scale,
            *tiled,
            strip,
            scaled,
        ],
        check=True,
    )
    t, width, height = row["transform"], row["width"], row["height"]
    extent = [t["c"], t["f"] + t["e"] * height, t["c"] + t["a"] * width, t["f"]]
    place = ["-t_srs", f"EPSG:{row['epsg']}", "-te", *map(repr, extent), "-ts", str(width), str(height)]
    threads = ["-multi", "-wo", "NUM_THREADS=ALL_CPUS"]
    packed = [
        text for option in ("COMPRESS=DEFLATE", "PREDICTOR=2", "NUM_THREADS=ALL_CPUS") for text in ("-co", option)
    ]
    options = ["-q", "-overwrite", "-dstalpha", "-r", "bilinear", *place, *threads, *tiled, *packed]
    subprocess.run(["gdalwarp", *options, *more, scaled, warped], check=True)
    return warped


def optimised(warped: Path) -> None:
    """Make of the file of gdalwarp what the job makes: cloud-optimised, with overviews, and with a mask."""
    options = ["-q", "-of", "COG", "-b", "1", "-b", "2", "-b", "3", "-mask", "4"]
    creation = ("COMPRESS=DEFLATE", "PREDICTOR=YES", "OVERVIEW_RESAMPLING=AVERAGE", "NUM_THREADS=ALL_CPUS")
    packed = [text for option in creation for text in ("-co", option)]
    subprocess.run(["gdal_translate", *options, *packed, warped, warped.with_name("cog.tif")], check=True)


def share_within_a_level(one: Path, other: Path) -> float:
    """Share of the pixels whose red, green and blue differ by at most one level, where both are full."""
    close = counted = 0
    with rasterio.open(one) as ours, rasterio.open(other) as theirs:
        for top in range(0, ours.height, PIECE):
            window = Window(0, top, ours.width, min(PIECE, ours.height - top))
            inside = (ours.dataset_mask(window=window) != 0) & (theirs.read(4, window=window) == 255)
            apart = ours.read(window=window).astype(int) - theirs.read((1, 2, 3), window=window)
            close += int((np.abs(apart).max(axis=0) <= 1)[inside].sum())
            counted += int(inside.sum())
    return close / counted


class Peak:
    """The most memory that one of this process's descendants but the JVM holds, in MB, sampled."""

    mb = 0.0

    def __enter__(self) -> Peak:
        self._over = Event()
        self._thread = Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        root = psutil.Process()
        while not self._over.wait(0.1):
            for child in root.children(recursive=True):
                try:
                    # Not by its name: a process that the JVM has just forked has its memory and a thread's name.
                    if Path(child.exe()).name != "java":
                        self.mb = max(self.mb, child.memory_info().rss / 1e6)
                except psutil.NoSuchProcess:
                    continue


def main() -> int:
    """Return exit code 1 if a bar is missed."""
    from geosieve.runtime.session import spark_session

    if not shutil.which("gdalwarp"):
        print("gdalwarp is not there: apt-get install gdal-bin", file=sys.stderr)
        return 1
    os.environ.setdefault("PYSPARK_SUBMIT_ARGS", "--master local[2] --driver-memory 2g pyspark-shell")
    ours, theirs, whole, levels = [], [], [], []
    with tempfile.TemporaryDirectory(dir=FOLDER.resolve()) as folder, spark_session("benchmark of strips", local=False):
        work = Path(folder)
        strip = fabricate(work / "strip.tif", SIDE)
        job(work, fabricate(work / "few.tif", FEW), "few")
        job_peak, programs_peak = Peak(), Peak()
        for repeat in range(REPEATS):
            with job_peak:
                report, row = job(work, strip, f"r{repeat}")
            seconds = report["seconds"]
            ours.append(seconds["tiles"] + seconds["assemble"])
            levels.append(seconds["levels"])
            start = perf_counter()
            with programs_peak:
                warped = programs(work, strip, row)
            theirs.append(perf_counter() - start)
            optimised(warped)
            whole.append(perf_counter() - start)
            print(f"  job {seconds}, programs {theirs[-1]:.1f} s, {whole[-1]:.1f} s with a COG", flush=True)
        made = Path(row["uri"].removeprefix("file:"))
        default = 100 * share_within_a_level(made, warped)
        exact = 100 * share_within_a_level(made, programs(work, strip, row, *EXACTLY))
    spent = [f"{median(seconds):.1f} s" for seconds in (ours, levels, theirs)]
    print(f"  medians: job {spent[0]}, and {spent[1]} for levels; programs {spent[2]}")
    print(f"  speed of the programs that make such a COG that the job has: {median(whole) / median(ours):.2f}")
    print(f"  the most memory: of a worker {job_peak.mb:.0f} MB, of a program {programs_peak.mb:.0f} MB")
    print(f"  within one level of gdalwarp as it is by default: {default:.3f} %")
    met = [
        bar("speed of the programs that the job has", median(theirs) / median(ours), BAR, at_least=True),
        bar("pixels within one level of gdalwarp without approximations", exact, PIXELS_BAR, "%", at_least=True),
    ]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
