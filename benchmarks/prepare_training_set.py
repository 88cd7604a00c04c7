"""Training shards of 4,000 photographs, job against a bare loop with the same library calls; two cores.

The photographs are synthetic scenes of 1024 x 768 pixels; a few contents stand under many names (hard links), so they
are read from the page cache. The loop runs in two processes that have started. It reads, decodes, resizes and encodes,
and does nothing else. Of the job, its stages `decode` and `write` count: the same work, and checksums, sums of colours,
the order of the images, the shuffle into files, and the Parquet files. The start of Spark and reading what images,
labels and splits there are do not count.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import shutil
import sys
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from PIL import Image

from benchmarks.decode_photos import scene
from benchmarks.fabricate import FOLDER
from benchmarks.label_job import RUN, job
from benchmarks.timing import REPEATS, bar
from geosieve.images.headers import Refusal

PHOTOS, CONTENTS = 4_000, 40
WIDTH, HEIGHT, SIDE, QUALITY = 1024, 768, 320, 90
BAR = 0.8


def photos() -> Path:
    """The folder of photographs, with EXIF positions. Later runs use it again."""
    folder = (FOLDER / f"photos_{PHOTOS}").resolve()
    if not folder.exists():
        made = folder.with_name(f"{folder.name}.part")
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
        for number in range(PHOTOS):
            path = made / f"{number:05d}.jpg"
            if number < CONTENTS:
                path.write_bytes(_photo(number))
            else:
                os.link(made / f"{number % CONTENTS:05d}.jpg", path)
        made.rename(folder)
    return folder


def _photo(number: int) -> bytes:
    exif = Image.Exif()
    exif[34853] = {1: "N", 2: (1.0 + number, 0.0, 0.0), 3: "E", 4: (2.0 * number, 0.0, 0.0)}  # the GPS tags
    stream = io.BytesIO()
    quality = 75 + number % 4 * 5
    scene(WIDTH, HEIGHT, seed=number).save(stream, "JPEG", quality=quality, exif=exif.tobytes())
    return stream.getvalue()


def prepare() -> Path:
    """Root of tables: the photographs ingested, labelled and split. Later runs use them again."""
    root = (FOLDER / f"photo_tables_{PHOTOS}").resolve()
    images = {"root": str(root)}
    source = {"name": "photos", "uri": str(photos()), "format": "photos"}
    cells = {"name": "s2_l3", "kind": "s2", "level": 3}
    splits = [{"name": "test", "share": 0.1}, {"name": "train", "share": 0.9}]
    steps: list[tuple[str, str, dict[str, Any]]] = [
        ("ingest_images", "images/source=photos", {"source": source}),
        ("label_attributes", "labels", {"images": images, "rasters": images, "partitions": [cells]}),
        (
            "build_splits",
            "splits/split_set=halves",
            {"name": "halves", "seed": 1, "images": images, "groups": [], "draw": "image", "splits": splits},
        ),
    ]
    for name, leaf, config in steps:
        if not (root / leaf / f"run_id={RUN}/_SUCCESS").exists():
            job(name, {**config, "output": str(root)}, RUN)
    return root


def shards(root: Path) -> dict[str, Any]:
    """Run the job and delete its output. Return its report."""
    output = FOLDER.resolve() / "shards"
    shutil.rmtree(output, ignore_errors=True)
    tables = {"root": str(root)}
    config = {
        **{"name": "bench", "seed": 1, "side": SIDE, "quality": QUALITY, "images": tables, "output": str(output)},
        "labels": {**tables, "partitions": ["s2_l3"]},
        "splits": {**tables, "name": "halves"},
    }
    try:
        report, _ = job("prepare_training_set", config, RUN)
    finally:
        shutil.rmtree(output, ignore_errors=True)
    assert report["rows_out"] == PHOTOS
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


def bare_loop(pool: Any, paths: list[str]) -> float:
    """Seconds of the loop in two processes, which share the photographs."""
    start = perf_counter()
    pool.map(shrink_all, [paths[k : k + 100] for k in range(0, len(paths), 100)], chunksize=1)
    return perf_counter() - start


def main() -> int:
    """Return exit code 1 if the bar is missed."""
    root = prepare()
    paths = sorted(str(path) for path in photos().iterdir())
    size = sum(os.path.getsize(path) for path in paths)
    print(f"  {PHOTOS} photographs of {size / PHOTOS / 1e3:.0f} kB, {CONTENTS} of them different")
    jobs, loops = [], []
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.map(shrink_all, [paths[:20]] * 4)  # imports, and the page cache
        for _ in range(REPEATS):
            loops.append(bare_loop(pool, paths))
            report = shards(root)
            jobs.append(report["seconds"]["decode"] + report["seconds"]["write"])
            told = ", ".join(f"{name} {seconds:.1f}" for name, seconds in report["seconds"].items())
            print(f"  loop {loops[-1]:.1f} s, job {jobs[-1]:.1f} s ({told})", flush=True)
    ours, theirs = median(jobs), median(loops)
    print(f"  job {PHOTOS / ours:.0f} photographs/s, loop {PHOTOS / theirs:.0f}/s")
    return 0 if bar("rate of the job over that of the loop", theirs / ours, BAR, at_least=True) else 1


if __name__ == "__main__":
    sys.exit(main())
