"""`geolocate_archive` against a bare forward loop, and a second run over an unchanged archive against the first.

The predictor is EfficientNet-Lite0 at 224 pixels with random weights, over the 1,536 S2 cells of the overlay of
`rank_regions`. The bare loop has tensors in memory, channels last, and calls the network, with two threads. The job
lists, catalogues, fingerprints, decodes and ranks, too, and writes its tables; the start of its session is left out.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks import FOLDER
from benchmarks.label_job import job
from benchmarks.rank_regions import build
from benchmarks.timing import bar
from geosieve.labels.read import REGION_COLUMNS
from geosieve.models.network import Network
from geosieve.models.onnx import as_onnx
from geosieve.models.predictor import TrainedPredictor, write_predictor
from geosieve.overlay.atoms import Overlay

IMAGES, LOOPED, BATCH = 3_000, 1_500, 32
NAMES, DISTINCT = 100_000, 200
BACKBONE = "efficientnet_lite0"


def artefact(root: Path, overlay: Overlay) -> str:
    """A predictor with random weights."""
    cells = overlay.partitions[0]
    torch.manual_seed(0)
    network = Network(BACKBONE, {"cells": cells.n_regions})
    told = {"name": "cells", "hash": cells.digest, "regions": cells.n_regions}
    facts = {"name": "cells", "backbone": BACKBONE, "partitions": [told], "shards": "", "training": {}, "code": {}}
    rows = [{"region": k, "name": str(k)} for k in range(cells.n_regions)]
    regions = {"cells": REGION_COLUMNS.empty_table().from_pylist(rows, REGION_COLUMNS)}
    uri = str(root / "predictor")
    facts, weights = {**facts, "preprocessing": {"resize": 256, "crop": 224}}, network.state_dict()
    write_predictor(uri, facts, weights, regions, "", as_onnx(facts, weights))
    return uri


def photos(folder: Path, count: int, size: tuple[int, int]) -> None:
    """JPEG files of blurred noise, unless they are there."""
    if folder.exists():
        return
    part = folder.with_suffix(".part")
    part.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(count)
    for number in range(count):
        noise = rng.integers(0, 256, (size[1] // 16, size[0] // 16, 3), dtype=np.uint8)
        stream = io.BytesIO()
        Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).save(stream, "JPEG", quality=90)
        (part / f"{number:06d}.jpg").write_bytes(stream.getvalue())
    part.rename(folder)


def names(folder: Path) -> None:
    """NAMES names for DISTINCT small photos, in folders of 1,000."""
    if folder.exists():
        return
    photos(folder.with_name("distinct"), DISTINCT, (64, 48))
    files = sorted(folder.with_name("distinct").iterdir())
    part = folder.with_suffix(".part")
    for number in range(NAMES):
        target = part / f"{number // 1000:03d}"
        if number % 1000 == 0:
            target.mkdir(parents=True, exist_ok=True)
        shutil.copy(files[number % DISTINCT], target / f"{number:06d}.jpg")
    part.rename(folder)


def looped(uri: str) -> float:
    """Images a second of the bare loop."""
    torch.set_num_threads(2)
    network = TrainedPredictor.load(uri).network
    given = torch.randn(LOOPED, 3, 224, 224).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        network(given[:BATCH])
        start = perf_counter()
        for at in range(0, LOOPED, BATCH):
            network(given[at : at + BATCH])
        return LOOPED / (perf_counter() - start)


def scanned(root: Path, uri: str, folder: Path, run_id: str) -> tuple[dict[str, Any], float, float]:
    """The report of a scan, its seconds without the session's start, and the memory of its workers, GiB."""
    config = {
        "name": folder.name,
        "source": {"name": folder.name, "format": "photos", "uri": str(folder)},
        "overlay": {"root": str(root), "name": "ranked"},
        "members": {"cells": {"predictor": uri, "partition": "cells"}},
        **{"batch": BATCH, "images_per_part": NAMES, "output": str(root / "scanned")},
    }
    report, used = job("geolocate_archive", config, run_id)
    stages = {name: seconds for name, seconds in report["seconds"].items() if name != "session"}
    told = ", ".join(f"{name} {seconds:.0f}" for name, seconds in stages.items())
    print(f"  {folder.name}, run {run_id}: {report['status']}, {told} s", flush=True)
    return report, sum(stages.values()), sum(used.worker_rss.values()) / 2**30


def main() -> int:
    """Return exit code 1 if a bar is missed."""
    root = FOLDER.resolve() / "ranking"
    overlay = build(root)
    shutil.rmtree(root / "scanned", ignore_errors=True)
    uri = artefact(root, overlay)
    photos(root / "photos", IMAGES, (816, 612))
    names(root / "names")
    loop = looped(uri)
    os.environ["OMP_NUM_THREADS"] = "1"
    report, seconds, memory = scanned(root, uri, root / "photos", "first")
    if report["rows_out"] != IMAGES:
        raise SystemExit(f"{report['rows_out']} of {IMAGES} images")
    rate = IMAGES / seconds
    print(f"  images/s: job {rate:.1f}, bare loop {loop:.1f}; while it looks {IMAGES / report['seconds']['look']:.1f}")
    _, _, of_many = scanned(root, uri, root / "names", "first")
    _, again, _ = scanned(root, uri, root / "names", "second")
    shutil.rmtree(root / "scanned")
    met = [
        bar("rate of the job over that of the bare loop", rate / loop, 0.85, at_least=True),
        bar(f"time of a second run over {NAMES:,} files, of what the first would take", again * rate / NAMES, 0.05),
        bar(f"memory of the workers with {NAMES:,} files over that with {IMAGES:,}", of_many / memory, 1.1),
    ]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
