"""`cut_chips` against a loop of rasterio and against gdal_translate, and a join of a million positions; two cores.

A synthetic strip of 12,000 x 12,000 pixels of 0.3 m, prepared by `prepare_strips`; chips of 750 pixels whose positions
lie in clusters. The loop is two processes, each with half of the chips, in bands from left to right with GDAL's cache
of the same size as ours, so that each block is decoded about once; it encodes as the job does, and writes a Parquet
file. gdal_translate is started once per chip (`-projwin`, two at a time), with the same level of zlib or quality of
JPEG. Of the job, everything but the start of the session counts: reading the tables, join, chips, rejects.

Positions of the join lie in eleven clusters, footprints of 15 x 12 km around them, so that a position lies in about
ten. The join is timed from the positions, which are in memory, to each one's preferred raster.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import rasterio
from affine import Affine
from pyproj import Transformer
from rasterio.windows import Window

from benchmarks import FOLDER
from benchmarks.strips import Peak
from benchmarks.timing import bar

SIDE, PIECE, SIZE, STEP = 12_000, 1_000, 750, 0.3
FEW, BY_PROGRAM = 150, 60
SOME, CHIPS = 1_200, {"png": 4_000, "jpeg": 12_000}  # as many as make Spark's fixed seconds small
LOOP_BAR, PROGRAM_BAR, JOIN_BAR, MEMORY_BAR = 0.7, 5, 5, 1.25
POSITIONS, FOOTPRINTS, CITIES = 1_000_000, 500, 11
LEFT, TOP, EPSG = 500_000.0, 5_000_000.0, "EPSG:32633"
REPEATS = 3


def fabricate(path: Path) -> Path:
    """Write a strip of smooth ground with noise and edges, 8 bits."""
    rng = np.random.default_rng(0)
    profile = {"driver": "GTiff", "count": 3, "height": SIDE, "width": SIDE, "dtype": "uint8", "tiled": True}
    place = {"crs": EPSG, "transform": Affine(STEP, 0, LEFT, 0, -STEP, TOP)}
    rows, columns = np.mgrid[:PIECE, :PIECE] * (2 * np.pi / PIECE)
    path.parent.mkdir()
    with rasterio.open(path, "w", **profile, **place, compress="zstd", zstd_level=1) as file:
        for top in range(0, SIDE, PIECE):
            for left in range(0, SIDE, PIECE):
                waves = np.stack([np.sin((3 + b) * rows + b) * np.cos((5 + top // PIECE) * columns) for b in range(3)])
                edges = 0.5 * (np.sin(20 * rows) * np.sin(24 * columns) > 0)
                noise = 0.05 * rng.normal(size=waves.shape)
                values = np.clip(110 + 60 * (waves + edges + noise), 1, 255).astype(np.uint8)
                file.write(values, window=Window(left, top, PIECE, PIECE))
    return path


def positions(path: Path, number: int) -> Path:
    """A list of positions in clusters, all of whose chips lie inside of the strip."""
    rng = np.random.default_rng(number)
    centres = rng.uniform(0.2, 0.8, (8, 2)) * SIDE * STEP
    at = centres[rng.integers(8, size=number)] + rng.normal(0, 150, (number, 2))
    at = np.clip(at, SIZE * STEP, (SIDE - SIZE) * STEP)
    lon, lat = Transformer.from_crs(EPSG, "EPSG:4326", always_xy=True).transform(LEFT + at[:, 0], TOP - at[:, 1])
    path.write_text("\n".join(["id,lat,lon", *(f"{n},{lat[n]!r},{lon[n]!r}" for n in range(number))]))
    return path


def job(work: Path, name: str, model: Any, run: Any, config: dict[str, Any], run_id: str) -> dict[str, Any]:
    """Run a job in this process and return its report. SystemExit if it fails."""
    from geosieve.job.main import main as begin

    path = work / f"{name}.yaml"
    path.write_text(json.dumps({**config, "output": str(work / "tables")}))
    with redirect_stdout(io.StringIO()) as printed:
        code = begin(name, model, run, ["--config", str(path), "--run-id", run_id])
    report: dict[str, Any] = json.loads(printed.getvalue().splitlines()[-1])
    if code:
        raise SystemExit(f"{name} failed: {report['error']}")
    return report


def cut(work: Path, listed: Path, kind: str, run_id: str) -> tuple[float, pa.Table]:
    """Seconds of `cut_chips` without the start of its session, and where its chips lie."""
    from geosieve.overhead.chips.config import ChipsConfig
    from geosieve.overhead.chips.job import cut_chips

    columns = {"image_id": "id", "lat": "lat", "lon": "lon"}
    config = {
        "name": "set",
        "positions": {"name": "list", "format": "csv", "uri": str(listed), "columns": columns},
        "rasters": {"root": str(work / "tables"), "strips": ["s"]},
        "format": kind,
    }
    start = perf_counter()
    report = job(work, "cut_chips", ChipsConfig, cut_chips, config, run_id)
    seconds = perf_counter() - start - report["seconds"]["session"]
    leaf = work / f"tables/chips/chip_set=set/run_id={run_id}"
    rows = pq.read_table(leaf, partitioning=None, columns=["transform"])
    shutil.rmtree(leaf)  # all repeats together would be 15 GB
    return seconds, rows


def loop(strip: str, transforms: list[dict[str, float]], kind: str, to: str) -> None:
    """Windows of a strip as encoded pictures in a Parquet file: one process of the loop."""
    from geosieve.overhead.chips.reading import encoded

    with (
        rasterio.Env(GDAL_CACHEMAX=64 << 20),
        rasterio.open(strip) as file,
        pq.ParquetWriter(to, pa.schema([("chip", pa.binary())]), compression="zstd") as out,
    ):
        windows = [Window(*(round(v) for v in ~file.transform * (t["c"], t["f"])), SIZE, SIZE) for t in transforms]
        windows.sort(key=lambda window: ((window.row_off + SIZE // 2) // 4096, window.col_off))
        for first in range(0, len(windows), 64):
            chips = []
            for window in windows[first : first + 64]:
                values = file.read(window=window)
                assert file.read_masks(1, window=window).all()
                chips.append(encoded(values, kind, 90))
            out.write_table(pa.table({"chip": pa.array(chips, pa.binary())}))


def looped(work: Path, strip: str, rows: pa.Table, kind: str) -> float:
    """Seconds of the loop in two processes, without their start. The chips are divided as they lie."""
    transforms = sorted(rows["transform"].to_pylist(), key=lambda t: (-t["f"] // (4096 * STEP), t["c"]))
    halves = [transforms[: len(transforms) // 2], transforms[len(transforms) // 2 :]]
    with get_context("spawn").Pool(2) as pool:
        pool.starmap(loop, [(strip, half[:1], kind, str(work / f"warm{n}.parquet")) for n, half in enumerate(halves)])
        start = perf_counter()
        pool.starmap(loop, [(strip, half, kind, str(work / f"{n}.parquet")) for n, half in enumerate(halves)], 1)
        return perf_counter() - start


def programs(work: Path, strip: str, rows: pa.Table, kind: str) -> float:
    """Seconds per chip of gdal_translate, two at a time."""

    def translate(number: int) -> None:
        t = rows["transform"][number].as_py()
        box = [t["c"], t["f"], t["c"] + SIZE * STEP, t["f"] - SIZE * STEP]
        level = "ZLEVEL=1" if kind == "png" else "QUALITY=90"
        options = ["-of", kind.upper(), "-co", level, "-mask", "none", "-projwin", *map(repr, box)]
        subprocess.run(["gdal_translate", "-q", *options, strip, work / f"{number}.{kind}"], check=True)

    start = perf_counter()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(translate, range(BY_PROGRAM)))
    return (perf_counter() - start) / BY_PROGRAM


def join(spark: Any) -> float:
    """Seconds in which a million positions find their rasters among 500; the median of three, after one to warm up."""
    import pandas as pd
    import shapely

    from geosieve.overhead.chips.config import View
    from geosieve.overhead.chips.job import _finder, plan
    from geosieve.overhead.chips.plan import utm_epsg
    from geosieve.overhead.chips.sources import ChipRaster, utm_wkt
    from geosieve.rasters.georeference import PixelGrid

    rng = np.random.default_rng(0)
    cities = np.column_stack([rng.uniform(-60, 65, CITIES), rng.uniform(-170, 170, CITIES)])
    rasters = []
    for n, (lat, lon) in enumerate(cities[rng.integers(CITIES, size=FOOTPRINTS)] + rng.normal(0, 0.1, (FOOTPRINTS, 2))):
        wkt = utm_wkt(utm_epsg(lat, lon))
        x, y = PixelGrid(wkt, Affine.identity(), 1, 1).system.forward(np.array([lat]), np.array([lon]))
        grid = PixelGrid(wkt, Affine(STEP, 0, x[0] - 7500, 0, -STEP, y[0] + 6000), 50_000, 40_000)
        edge = np.linspace(0, 1, 33)[:-1]
        zero, one = np.zeros(32), np.ones(32)
        ring = np.concatenate(
            [np.stack(side) for side in ((edge, zero), (one, edge), (1 - edge, one), (zero, 1 - edge))], 1
        )
        north, east = grid.system.inverse(*grid.coordinates(ring[1] * 40_000, ring[0] * 50_000))
        outline = shapely.Polygon(np.column_stack([east, north])).wkb
        zone = utm_epsg(lat, lon)
        rasters.append(ChipRaster("s", f"{n:03d}", str(n), grid, zone, (512, 512), outline, None, None, STEP,
                                  0, 1, None, (1, 2, 3), None))  # fmt: skip
    at = cities[rng.integers(CITIES, size=POSITIONS)] + rng.normal(0, 0.08, (POSITIONS, 2))
    listed = pd.DataFrame({"image_id": [f"i{n}" for n in range(POSITIONS)], "lat": at[:, 0], "lon": at[:, 1]})
    nothing = ", ".join(f"CAST(NULL AS STRING) AS {name}" for name in ("error_class", "message"))
    frame = spark.createDataFrame(listed).selectExpr(
        "'s' AS source", "image_id", "CAST(NULL AS STRING) AS uri", "lat", "lon", *nothing.split(", ")
    )
    frame = frame.repartition(4).persist()
    frame.count()
    seconds = []
    for _ in range(1 + REPEATS):
        start = perf_counter()
        planned = plan(spark, frame, _finder(spark, frame, rasters), [View()])
        planned.write.mode("overwrite").format("noop").save()
        seconds.append(perf_counter() - start)
    found = planned.where("error_class IS NULL").count()
    print(f"  join: {found:,} of {POSITIONS:,} positions have a raster; seconds {[round(s, 2) for s in seconds]}")
    return median(seconds[1:])


def main() -> int:
    """Return exit code 1 if a bar is missed."""
    from geosieve.overhead.strips.config import StripsConfig
    from geosieve.overhead.strips.prepare import prepare_strips
    from geosieve.runtime.session import spark_session

    if not shutil.which("gdal_translate"):
        print("gdal_translate is not there: apt-get install gdal-bin", file=sys.stderr)
        return 1
    os.environ.setdefault("PYSPARK_SUBMIT_ARGS", "--master local[2] --driver-memory 2g pyspark-shell")
    met = []
    with tempfile.TemporaryDirectory(dir=FOLDER.resolve()) as folder, spark_session("chips", local=False) as spark:
        work = Path(folder)
        strips = {"name": "s", "uri": str(fabricate(work / "in" / "s.tif")), "ranges": [[0, 255]]}
        job(work, "prepare_strips", StripsConfig, prepare_strips, {"strips": strips}, "r")
        strip = next((work / "tables/_strips").rglob("*.tif"))
        peaks = {number: Peak() for number in (FEW, SOME, CHIPS["png"])}
        for number in (FEW, SOME):
            with peaks[number]:
                cut(work, positions(work / f"{number}.csv", number), "png", f"n{number}")
        for kind, number in CHIPS.items():
            listed = positions(work / f"{kind}.csv", number)
            ours, theirs = [], []
            for repeat in range(REPEATS):
                with peaks.get(number, Peak()):
                    seconds, rows = cut(work, listed, kind, f"{kind}{repeat}")
                ours.append(seconds)
                theirs.append(looped(work, str(strip), rows, kind))
                print(f"  {kind}: {len(rows)} chips, job {ours[-1]:.1f} s, loop {theirs[-1]:.1f} s", flush=True)
            each, mine = programs(work, str(strip), rows, kind), median(ours) / number
            print(f"  {kind}: gdal_translate {each * 1e3:.1f} ms per chip, job {mine * 1e3:.1f} ms", flush=True)
            met.append(bar(f"speed of the loop, {kind}", median(theirs) / median(ours), LOOP_BAR, at_least=True))
            met.append(bar(f"speed over gdal_translate, {kind}", each / mine, PROGRAM_BAR, at_least=True))
        most = {number: peak.mb for number, peak in peaks.items()}
        print(f"  the most memory of a worker: {', '.join(f'{mb:.0f} MB for {n} chips' for n, mb in most.items())}")
        met.append(bar("memory of a worker for eight times the chips", most[SOME] / most[FEW], MEMORY_BAR))
        met.append(bar("join of a million positions and 500 footprints", join(spark), JOIN_BAR, "s"))
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
