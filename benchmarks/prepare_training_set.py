"""Training shards of 6,000 photographs, job against a bare loop with the same library calls; two cores.

The photographs are synthetic scenes of 1024 x 768 pixels; a few contents stand under many names (hard links), so they
are read from the page cache. The loop runs in two processes that have started. It reads, decodes, resizes and encodes,
and does nothing else. Of the job, its stages `decode` and `write` count: the same work, and checksums, sums of colours,
the order of the images, the shuffle into files, and the Parquet files. The start of Spark and reading what images,
labels and splits there are do not count. Before, the same JVM has made shards of a few photographs: compiling Spark's
code takes some 15 s of processor time, however many images there are.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import psutil
from PIL import Image

from benchmarks import FOLDER
from benchmarks.decode_photos import scene
from benchmarks.timing import REPEATS, bar
from geosieve.images.headers import Refusal

PHOTOS, FEW, CONTENTS = 6_000, 200, 40
WIDTH, HEIGHT, SIDE, QUALITY = 1024, 768, 320, 90
BAR = 0.8


def fabricate(folder: Path, photos: int) -> Path:
    """Write photographs with EXIF positions into a folder and return it."""
    folder.mkdir()
    for number in range(photos):
        path = folder / f"{number:05d}.jpg"
        if number < CONTENTS:
            path.write_bytes(_photo(number))
        else:
            os.link(folder / f"{number % CONTENTS:05d}.jpg", path)
    return folder


def _photo(number: int) -> bytes:
    exif = Image.Exif()
    exif[34853] = {1: "N", 2: (1.0 + number, 0.0, 0.0), 3: "E", 4: (2.0 * number, 0.0, 0.0)}  # the GPS tags
    stream = io.BytesIO()
    quality = 75 + number % 4 * 5
    scene(WIDTH, HEIGHT, seed=number).save(stream, "JPEG", quality=quality, exif=exif.tobytes())
    return stream.getvalue()


def job(work: Path, name: str, config: dict[str, Any], run_id: str) -> dict[str, Any]:
    """Run a job in this process and return its report. SystemExit if it fails."""
    from geosieve.images.ingest import IngestConfig, ingest_images
    from geosieve.job.main import main as run
    from geosieve.labels.label import LabelConfig, label_attributes
    from geosieve.splits.build import build_splits
    from geosieve.splits.config import SplitConfig
    from geosieve.training.config import TrainingSetConfig
    from geosieve.training.prepare import prepare_training_set

    jobs: dict[str, Any] = {
        "ingest_images": (IngestConfig, ingest_images),
        "label_attributes": (LabelConfig, label_attributes),
        "build_splits": (SplitConfig, build_splits),
        "prepare_training_set": (TrainingSetConfig, prepare_training_set),
    }
    path = work / f"{name}.yaml"
    path.write_text(json.dumps({**config, "output": str(work / "tables")}))
    with redirect_stdout(io.StringIO()) as printed:
        code = run(name, *jobs[name], ["--config", str(path), "--run-id", run_id])
    report: dict[str, Any] = json.loads(printed.getvalue().splitlines()[-1])
    if code:
        raise SystemExit(f"{name} failed: {report['error']}")
    return report


def prepare(work: Path) -> None:
    """Ingest, label and split the photographs of two sources, `few` and `photos`."""
    tables = {"root": str(work / "tables")}
    for name, photos in (("few", FEW), ("photos", PHOTOS)):
        folder = fabricate(work / name, photos)
        job(work, "ingest_images", {"source": {"name": name, "uri": str(folder), "format": "photos"}}, name)
    cells = {"name": "s2_l3", "kind": "s2", "level": 3}
    job(work, "label_attributes", {"images": tables, "rasters": tables, "partitions": [cells]}, "r1")
    splits = [{"name": "test", "share": 0.1}, {"name": "train", "share": 0.9}]
    drawn = {"name": "halves", "seed": 1, "groups": [], "draw": "image", "splits": splits}
    job(work, "build_splits", {**drawn, "images": tables}, "r1")


def shards(work: Path, source: str) -> dict[str, Any]:
    """Make the shards of a source and delete them. Return the job's report."""
    tables = {"root": str(work / "tables")}
    config = {
        **{"name": source, "seed": 1, "side": SIDE, "quality": QUALITY, "ranks": 1},
        "images": {**tables, "sources": [source]},
        "labels": {**tables, "partitions": ["s2_l3"]},
        "splits": {**tables, "name": "halves"},
    }
    report = job(work, "prepare_training_set", config, "r1")
    shutil.rmtree(work / "tables" / "training_shards")
    shutil.rmtree(work / "tables" / "rejects" / "job=prepare_training_set")
    return report


def shrink_all(paths: list[str]) -> int:
    """The bare loop over some photographs. Returns the bytes that it made."""
    import numpy as np
    import simplejpeg

    from geosieve.images.decode import decode

    made = 0
    for path in paths:
        with open(path, "rb") as file:
            pixels = decode(file.read(), SIDE)
        assert not isinstance(pixels, Refusal)
        made += len(simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), QUALITY, "RGB", "420"))
    return made


def processor_time() -> float:
    """Processor seconds of this process and its descendants: the loop's processes, the JVM and its Python workers."""
    root = psutil.Process()
    times = [process.cpu_times() for process in (root, *root.children(recursive=True))]
    return sum(time.user + time.system for time in times)


def bare_loop(pool: Any, paths: list[str]) -> float:
    """Seconds of the loop in two processes, which share the photographs."""
    start = perf_counter()
    pool.map(shrink_all, [paths[k : k + 100] for k in range(0, len(paths), 100)], chunksize=1)
    return perf_counter() - start


def main() -> int:
    """Return exit code 1 if the bar is missed."""
    from geosieve.runtime.session import spark_session

    os.environ.setdefault("PYSPARK_SUBMIT_ARGS", "--master local[2] --driver-memory 2g pyspark-shell")
    jobs, loops = [], []
    with (
        tempfile.TemporaryDirectory(dir=FOLDER.resolve()) as folder,
        multiprocessing.get_context("spawn").Pool(2) as pool,
        spark_session("prepare_training_set", local=False),
    ):
        work = Path(folder)
        prepare(work)
        paths = sorted(str(path) for path in (work / "photos").iterdir())
        size = sum(os.path.getsize(path) for path in paths)
        print(f"  {PHOTOS} photographs of {size / PHOTOS / 1e3:.0f} kB, {CONTENTS} of them different", flush=True)
        shards(work, "few")
        pool.map(shrink_all, [paths[:20]] * 4)  # imports, and the page cache
        for _ in range(REPEATS):
            start = processor_time()
            loops.append(bare_loop(pool, paths))
            between = processor_time()
            report = shards(work, "photos")
            spent = f"{between - start:.0f} and {processor_time() - between:.0f} s of processor time"
            assert report["rows_out"] == PHOTOS
            jobs.append(report["seconds"]["decode"] + report["seconds"]["write"])
            told = ", ".join(f"{name} {seconds:.1f}" for name, seconds in report["seconds"].items())
            print(f"  loop {loops[-1]:.1f} s, job {jobs[-1]:.1f} s ({told}); {spent}", flush=True)
    ours, theirs = median(jobs), median(loops)
    print(f"  job {PHOTOS / ours:.0f} photographs/s, loop {PHOTOS / theirs:.0f}/s")
    return 0 if bar("rate of the job over that of the loop", theirs / ours, BAR, at_least=True) else 1


if __name__ == "__main__":
    sys.exit(main())
