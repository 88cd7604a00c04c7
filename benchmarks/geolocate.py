"""`geolocate_archive` against a bare forward loop, and a second run over an unchanged archive against the first.

The predictor is EfficientNet-Lite0 at 224 pixels with random weights, over the 1,536 S2 cells of the overlay of
`rank_regions`. Its temperature makes it about as sure as trained ones are: half of the probability is in some 7 cells,
and 90 % in 150. The bare loop has tensors in memory, channels last, and calls the network in PyTorch, with two threads.
The job lists, catalogues, fingerprints, decodes and ranks, too, and writes its tables; it asks the predictor's ONNX
graph, whose own rate is told, too. The start of its session is left out. Java has the options that docs/how-to.md names
for scans on small machines.
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
import pyarrow as pa
import torch
from PIL import Image

from benchmarks import FOLDER
from benchmarks.label_job import job
from benchmarks.rank_regions import build
from benchmarks.timing import bar
from geosieve.images.decode import decode
from geosieve.images.headers import Refusal
from geosieve.inference.archive_config import GeolocateConfig
from geosieve.inference.given import Gathered
from geosieve.inference.ranker import read_ranker
from geosieve.labels.read import REGION_COLUMNS
from geosieve.models.graph import GraphPredictor
from geosieve.models.network import Network
from geosieve.models.onnx import as_onnx
from geosieve.models.predictor import TrainedPredictor, write_predictor
from geosieve.overlay.atoms import Overlay
from geosieve.runtime.session import spark_session

IMAGES, LOOPED, BATCH = 9_000, 1_500, 32
TEMPERATURE = 0.3
NAMES, DISTINCT = 100_000, 200
BACKBONE = "efficientnet_lite0"
SMALL = ("--driver-java-options", "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m")
"""As docs/how-to.md has it for scans on one small machine."""


def artefact(root: Path, overlay: Overlay) -> str:
    """A predictor with random weights."""
    cells = overlay.partitions[0]
    torch.manual_seed(0)
    network = Network(BACKBONE, {"cells": cells.n_regions})
    told = {"name": "cells", "hash": cells.digest, "regions": cells.n_regions, "temperature": TEMPERATURE}
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


def looped(uri: str) -> tuple[float, float]:
    """Images a second of the bare loop, and of the predictor's graph on crops in memory."""
    torch.set_num_threads(2)
    network = TrainedPredictor.load(uri).network
    given = torch.randn(LOOPED, 3, 224, 224).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        network(given[:BATCH])
        start = perf_counter()
        for at in range(0, LOOPED, BATCH):
            network(given[at : at + BATCH])
        bare = LOOPED / (perf_counter() - start)
    graph = GraphPredictor.load(uri, threads=2)
    images = list(np.random.default_rng(0).integers(0, 256, (LOOPED, 256, 256, 3), dtype=np.uint8))
    graph.log_probabilities(images[:BATCH])
    start = perf_counter()
    for at in range(0, LOOPED, BATCH):
        graph.log_probabilities(images[at : at + BATCH])
    return bare, LOOPED / (perf_counter() - start)


def ranking(root: Path, uri: str, folder: Path) -> float:
    """Seconds that ensemble and ranking take an image, in one process."""
    config = GeolocateConfig(**configuration(root, uri, folder))
    with spark_session("ranking", local=True) as spark:
        ranker, _ = read_ranker(spark, config)
    files = sorted(folder.iterdir())[: 8 * BATCH]
    images = [image for file in files if not isinstance(image := decode(file.read_bytes(), 256), Refusal)]
    p = np.exp(GraphPredictor.load(uri, threads=1).log_probabilities(images)["cells"])
    names = pa.array([file.name for file in files])
    some = [
        Gathered(names[at : at + BATCH], names[at : at + BATCH], {"cells": p[at : at + BATCH]}, {}, 0.0)
        for at in range(0, len(files), BATCH)
    ]
    ranker.rank(some[0])
    start = perf_counter()
    for one in some:
        ranker.rank(one)
    return (perf_counter() - start) / len(files)


def configuration(root: Path, uri: str, folder: Path) -> dict[str, Any]:
    """Of a scan."""
    return {
        "name": folder.name,
        "source": {"name": folder.name, "format": "photos", "uri": str(folder)},
        "overlay": {"root": str(root), "name": "ranked"},
        "members": {"cells": {"predictor": uri, "partition": "cells"}},
        **{"batch": BATCH, "images_per_part": NAMES, "output": str(root / "scanned")},
    }


def scanned(root: Path, uri: str, folder: Path, run_id: str) -> tuple[dict[str, Any], float, float]:
    """The report of a scan, its seconds without the session's start, and the memory of its largest worker, GiB."""
    report, used = job("geolocate_archive", configuration(root, uri, folder), run_id, *SMALL)
    stages = {name: seconds for name, seconds in report["seconds"].items() if name != "session"}
    told = ", ".join(f"{name} {seconds:.0f}" for name, seconds in stages.items())
    print(f"  {folder.name}, run {run_id}: {report['status']}, {told} s", flush=True)
    return report, sum(stages.values()), max(used.worker_rss.values()) / 2**30


def main() -> int:
    """Return exit code 1 if a bar is missed."""
    root = FOLDER.resolve() / "ranking"
    overlay = build(root)
    shutil.rmtree(root / "scanned", ignore_errors=True)
    uri = artefact(root, overlay)
    photos(root / f"photos_{IMAGES}", IMAGES, (816, 612))
    names(root / "names")
    bare, graph = looped(uri)
    os.environ["OMP_NUM_THREADS"] = "1"
    report, seconds, memory = scanned(root, uri, root / f"photos_{IMAGES}", "first")
    if report["rows_out"] != IMAGES:
        raise SystemExit(f"{report['rows_out']} of {IMAGES} images")
    rate, look = IMAGES / seconds, IMAGES / report["seconds"]["look"]
    print(f"  images/s: job {rate:.1f}, while it looks {look:.1f}; bare loop {bare:.1f}, ONNX graph alone {graph:.1f}")
    share = ranking(root, uri, root / f"photos_{IMAGES}") / (2 * seconds / IMAGES)
    _, _, of_many = scanned(root, uri, root / "names", "first")
    _, again, _ = scanned(root, uri, root / "names", "second")
    shutil.rmtree(root / "scanned")
    met = [
        bar("rate of the job over that of the bare loop", rate / bare, 0.85, at_least=True),
        bar("share of ensemble and ranking in the time of both cores", share, 0.1),
        bar(f"time of a second run over {NAMES:,} files, of what the first would take", again * rate / NAMES, 0.05),
        bar(f"memory of the largest worker with {NAMES:,} files over that with {IMAGES:,}", of_many / memory, 1.1),
    ]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
